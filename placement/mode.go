package placement

import (
	"fmt"
	"time"
)

// Mode says whether an applier acts or only watches.
type Mode string

// The two modes. A fresh production configuration observes.
const (
	Observe Mode = "observe" // compute, log and count the difference; change nothing
	Act     Mode = "act"     // apply it
)

// Or returns m, or d where m is not set.
func (m Mode) Or(d Mode) Mode {
	if m == "" {
		return d
	}
	return m
}

// UnmarshalText accepts "observe" and "act" only: a typo must not act.
func (m *Mode) UnmarshalText(b []byte) error {
	switch v := Mode(b); v {
	case Observe, Act, "":
		*m = v
		return nil
	}
	return fmt.Errorf("mode %q is neither observe nor act", b)
}

// Duration is a time.Duration which reads and prints as text ("20s", "300ms").
type Duration time.Duration

// D returns the duration in the unit of package time.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Or returns d, or def where d is zero.
func (d Duration) Or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText prints the duration as package time does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a Go duration; negative ones are refused.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: want a number with a unit, as 20s or 300ms", b)
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", b)
	}
	*d = Duration(v)
	return nil
}
