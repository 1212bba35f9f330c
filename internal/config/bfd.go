package config

import (
	"fmt"
	"time"

	"rhumb/placement"
)

// BFD says how a neighbour is watched (RFC 5880). The zero value is off.
type BFD struct {
	Interval   placement.Duration `yaml:"interval"`   // of beats in both directions; 300ms by default
	Multiplier int                `yaml:"multiplier"` // beats which may be missed; 3 by default
	Port       int                `yaml:"port"`       // 3784, or 4784 (RFC 5883) for what FRR does beside TTL security
	On         bool               `yaml:"-"`
}

// The defaults notice a death in 900 ms.
const (
	defaultBFDInterval   = 300 * time.Millisecond
	defaultBFDMultiplier = 3
	defaultBFDPort       = 3784
)

// UnmarshalYAML accepts the short forms `bfd: on` and `bfd: off`. Whoever names
// an interval or a multiplier means it to be on.
func (b *BFD) UnmarshalYAML(unmarshal func(any) error) error {
	var word string
	if unmarshal(&word) == nil {
		if word != "on" && word != "off" {
			return fmt.Errorf("bfd is %q: want on, off, or interval and multiplier", word)
		}
		*b = BFD{On: word == "on"}
		return nil
	}
	type plain BFD
	err := unmarshal((*plain)(b))
	b.On = true
	return err
}

// defaults fills in what was left out.
func (b *BFD) defaults() {
	if b.On {
		b.Interval = or(b.Interval, placement.Duration(defaultBFDInterval))
		b.Multiplier, b.Port = or(b.Multiplier, defaultBFDMultiplier), or(b.Port, defaultBFDPort)
	}
}

// checkBFD says what is wrong with a neighbour's BFD, or nothing.
func (p *Peer) checkBFD() string {
	switch d := p.BFD.Interval.D(); {
	case !p.BFD.On:
		return ""
	case p.Multihop > 0:
		return "bfd is for directly connected peers, not for multihop (RFC 5881)"
	case d < 10*time.Millisecond || d > time.Minute:
		return fmt.Sprintf("bfd interval %s: want 10ms to 1m", d)
	case p.BFD.Multiplier < 1 || p.BFD.Multiplier > 255:
		return fmt.Sprintf("bfd multiplier %d: want 1 to 255 (RFC 5880, 4.1)", p.BFD.Multiplier)
	case p.BFD.Port != defaultBFDPort && p.BFD.Port != 4784:
		return fmt.Sprintf("bfd port %d: want 3784 (RFC 5881) or 4784 (RFC 5883)", p.BFD.Port)
	}
	return ""
}
