package rpki

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// Config says where VRPs come from: a file or caches, not both.
type Config struct {
	File string
	// Caches are HOST:PORT of RTR caches, the preferred one first.
	Caches []string
	// MaxAge is how old data may be and still judge; 0 is a day. A cache may say less.
	MaxAge time.Duration
	// Every is how often the file is looked at; 0 is ten seconds.
	Every  time.Duration
	Logger *slog.Logger
}

// Source holds the newest Table. Judge may be called from anywhere; Run keeps it new.
type Source struct {
	c     Config
	log   *slog.Logger
	table atomic.Pointer[Table]
	told  string // the last trouble, told once for as long as it lasts
}

// NewSource returns a source without data; Run brings them.
func NewSource(c Config) *Source {
	if c.MaxAge == 0 {
		c.MaxAge = 24 * time.Hour
	}
	if c.Every == 0 {
		c.Every = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{c: c, log: c.Logger}
}

// Set makes a table the newest.
func (s *Source) Set(t *Table) { s.table.Store(t) }

// Finding is what is known of one route's origin.
type Finding struct {
	State State
	// Stale is set when the data are too old, or there are none; State is NotFound then.
	Stale bool
	// Text says why, for people.
	Text string
}

// Invalid tells whether fresh data speak against the route.
func (f Finding) Invalid() bool { return f.State == Invalid }

// Word is the finding in a word: valid, invalid, not-found or stale.
func (f Finding) Word() string {
	if f.Stale {
		return "stale"
	}
	return f.State.String()
}

// Judge says what the data make of a route; now decides whether they are too old.
func (s *Source) Judge(route netip.Prefix, origin uint32, now time.Time) Finding {
	t := s.table.Load()
	switch {
	case t == nil:
		return Finding{Stale: true, Text: "no VRP data yet"}
	case now.Sub(t.At) > s.c.MaxAge, t.Expire > 0 && now.Sub(t.At) > t.Expire:
		return Finding{Stale: true, Text: "VRP data are of " + t.At.UTC().Format(time.RFC3339)}
	}
	state, covering := t.Judge(route, origin)
	f := Finding{State: state, Text: "no VRP covers it"}
	for i, v := range covering {
		if i == 0 {
			f.Text = v.String()
		} else if i < 4 { // enough to see what is wrong
			f.Text += ", " + v.String()
		}
	}
	if len(covering) > 4 {
		f.Text += fmt.Sprintf(" and %d more", len(covering)-4)
	}
	return f
}

// Data returns how many VRPs there are and how old they are; none is (0, 0).
func (s *Source) Data(now time.Time) (vrps int, age time.Duration) {
	t := s.table.Load()
	if t == nil {
		return 0, 0
	}
	return t.Len(), max(now.Sub(t.At), 0)
}

// Run keeps the table new until the context ends.
func (s *Source) Run(ctx context.Context) error {
	if s.c.File != "" {
		return s.follow(ctx)
	}
	return s.dialCaches(ctx)
}

// follow reads the file whenever it has changed. Validators replace it; what cannot
// be read leaves the last good data in force, until they are too old.
func (s *Source) follow(ctx context.Context) error {
	tick := time.NewTicker(s.c.Every)
	defer tick.Stop()
	var last stamp
	for {
		if now, err := stampOf(s.c.File); err != nil {
			s.trouble(err)
		} else if now != last {
			if t, err := ReadFile(s.c.File); err != nil {
				s.trouble(err)
			} else {
				last = now
				s.adopt(t, s.c.File)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// stamp tells one version of a file from another.
type stamp struct {
	mod  time.Time
	size int64
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, fmt.Errorf("rpki: %w", err)
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

// adopt makes a table the newest and says so.
func (s *Source) adopt(t *Table, from string) {
	s.Set(t)
	s.told = ""
	s.log.Info("rpki: VRP data", "from", from, "vrps", t.Len(), "of", t.At.UTC().Format(time.RFC3339))
}

// trouble logs an error once for as long as it lasts.
func (s *Source) trouble(err error) {
	if err == nil || errors.Is(err, context.Canceled) || s.told == err.Error() {
		return
	}
	s.told = err.Error()
	s.log.Warn("rpki: no new data", "err", err)
}
