package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// copied is one zone. Its run alone asks primaries; the mutex guards what others read.
type copied struct {
	in   *In
	want Incoming
	wake chan struct{}

	mu    sync.Mutex
	state refresh
	held  Held
	names []string // of the held version, sorted
	soa   *dns.SOA // of the held version, nil for none
	past
	results map[string]uint64
}

// past is what a zone remembers of itself beside its version.
type past struct {
	asking bool
	// expired is set once the log has told it.
	expired bool
	// forgotten is set once nothing of the zone may stay on disk.
	forgotten bool
}

// restore takes in the version from disk, judged anew: the rules for files may have
// changed since.
func (z *copied) restore(text []byte, confirmed, now time.Time) error {
	names, err := z.check(text)
	if err != nil {
		return err
	}
	soa, err := readSOA(z.want.Name, text)
	if err != nil {
		return err
	}
	z.names, z.soa = names, soa
	z.state = restored(len(z.want.Primaries), soa, confirmed, now)
	z.held = Held{Data: text, SHA256: digest(text), Serial: soa.Serial, Confirmed: z.state.confirmed}
	z.judge(now)
	return nil
}

// judge says whether the version may be served; mu is held, or nobody else has the
// zone yet. True means that it has changed.
func (z *copied) judge(now time.Time) bool {
	expired := z.state.expired(now)
	if expired == z.expired {
		return false
	}
	z.expired, z.held.Unserved = expired, ""
	if expired {
		z.held.Unserved = fmt.Sprintf("expired: no primary has confirmed serial %d since %s", z.held.Serial, z.state.confirmed.UTC().Format(time.RFC3339))
		z.in.c.Log.Error("zone expired: it is not answered until a primary is reached", "zone", z.want.Name, "serial", z.held.Serial, "since", z.state.confirmed)
	}
	return true
}

// run asks whenever it is time, until the context ends.
func (z *copied) run(ctx context.Context) {
	for {
		now := z.in.c.Now()
		z.mu.Lock()
		changed, next := z.judge(now), z.state.next(now)
		due := !now.Before(z.state.due)
		z.asking = due
		z.mu.Unlock()
		if changed {
			z.in.c.Changed()
		}
		if due {
			z.ask(ctx)
		} else if !z.wait(ctx, next.Sub(now)) {
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// wait ends at a time, or with a NOTIFY; false when the context has ended.
func (z *copied) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-z.wake:
	}
	return true
}

// notified takes a NOTIFY, or an operator's wish.
func (z *copied) notified(serial uint32, known bool) {
	z.mu.Lock()
	z.state = z.state.notified(z.in.c.Now(), serial, known, z.asking)
	z.mu.Unlock()
	select {
	case z.wake <- struct{}{}:
	default:
	}
}

// ask goes to one primary, and takes in what came of it.
func (z *copied) ask(ctx context.Context) {
	select {
	case z.in.places <- struct{}{}:
		defer func() { <-z.in.places }()
	case <-ctx.Done():
		return
	}
	z.mu.Lock()
	addr := z.want.Primaries[z.state.primary]
	z.mu.Unlock()
	got, err := z.fetch(ctx, addr)
	now := z.in.c.Now()
	if ctx.Err() != nil {
		return
	}
	z.mu.Lock()
	z.asking = false
	if err != nil {
		z.failed(now, addr, err)
		z.mu.Unlock()
		return
	}
	z.take(got, addr, now)
	changed := z.judge(now) || got.kind != KindNone
	z.mu.Unlock()
	if changed {
		z.in.c.Changed()
	}
}

// failed notes a primary that did not help; mu is held. It is told once a round.
func (z *copied) failed(now time.Time, addr netip.AddrPort, err error) {
	z.state = z.state.fail(now)
	z.count("failed")
	z.held.Fault = fmt.Sprintf("primary %s: %v", addr, err)
	var wrong *refused
	z.held.Refused = z.held.Refused || errors.As(err, &wrong)
	if z.state.failed%z.state.primaries == 0 {
		z.in.c.Log.Warn("no primary gives the zone: the last good version serves on", "zone", z.want.Name, "peer", addr.String(),
			"serial", z.held.Serial, "next", z.state.due, "err", err)
	}
}

// take puts a version in force; mu is held.
func (z *copied) take(v *version, addr netip.AddrPort, now time.Time) {
	z.state = z.state.confirm(now, v.soa, rand.Float64())
	z.held.Confirmed, z.held.Fault, z.held.Refused = now, "", false
	z.count(string(v.kind))
	if v.kind == KindNone {
		if err := z.in.shelf.confirm(z.want.Name, now); err != nil && !z.forgotten {
			z.in.c.Log.Warn("time of zone on disk not renewed", "zone", z.want.Name, "err", err)
		}
		return
	}
	before := z.held.Serial
	z.soa, z.names, z.expired = v.soa, v.names, false
	z.held = Held{Data: v.text, SHA256: digest(v.text), Serial: v.soa.Serial, Primary: addr, Kind: v.kind, At: now, Confirmed: now}
	z.in.c.Log.Info("zone received", "zone", z.want.Name, "peer", addr.String(), "serial", v.soa.Serial, "before", before, "kind", string(v.kind), "names", len(v.names))
	z.keepOnDisk(v.text, now)
}
