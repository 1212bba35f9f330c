package transfer

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Incoming is a zone that is copied from primaries.
type Incoming struct {
	Name      string // canonical
	Primaries []netip.AddrPort
	Key       string // "": unsigned
	// TLS is the name in the primaries' certificate; "": in clear.
	TLS string
	// KeepNames is the part of the names which a new version must keep; 0: any. Of a
	// catalog it is the part of the zones that it lists.
	KeepNames float64
	// Catalog is set for a zone that lists zones (RFC 9432). A broken version is not taken.
	Catalog bool
	// Listed is set for a zone that a catalog lists.
	Listed Listing
}

// equal tells whether two descriptions are the same.
func (z *Incoming) equal(o *Incoming) bool {
	return z.Name == o.Name && slices.Equal(z.Primaries, o.Primaries) && z.Key == o.Key && z.TLS == o.TLS && z.KeepNames == o.KeepNames &&
		z.Catalog == o.Catalog && z.Listed.same(o.Listed)
}

// Config is what an In is made of.
type Config struct {
	// Dir keeps the last good version of each zone.
	Dir    string
	Keys   *Keyring
	Source netip.Addr  // to speak from; may be invalid
	TLS    *tls.Config // for primaries over TLS; nil: the system's roots
	// Check judges a version as a file of the operator's would be, and returns its names.
	Check func(zone string, text []byte) (names []string, err error)
	// Changed is called when what Held returns has changed; it must not block.
	Changed func()
	// Connect opens connections to primaries; nil: the network does.
	Connect Connect
	Log     *slog.Logger
	Now     func() time.Time
}

// maxReceiving is how many zones are received at once.
const maxReceiving = 8

// In keeps copies of zones. Its methods are safe for concurrent use.
type In struct {
	c      Config
	shelf  shelf
	places chan struct{}
	wake   chan struct{}

	mu    sync.Mutex
	zones map[string]*copied
	// gone are zones that are no longer wanted and still running.
	gone []*copied
}

// NewIn makes an In that copies nothing until Set is called.
func NewIn(c Config) *In {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Connect == nil {
		c.Connect = connectTCP
	}
	return &In{c: c, shelf: shelf{c.Dir}, places: make(chan struct{}, maxReceiving), wake: make(chan struct{}, 1), zones: make(map[string]*copied)}
}

// Held is a zone as it was last received.
type Held struct {
	Data   []byte // master file
	SHA256 string
	Serial uint32
	// Unserved says why the zone must not be answered; "": it may.
	Unserved string
	// Fault says why the newest version is not the one held, or cannot be had.
	Fault string
	// Refused is set where there is a newer one, and it is not taken.
	Refused bool
	// Primary sent the version, at At; At is zero where it was read from disk.
	Primary   netip.AddrPort
	Kind      Kind
	At        time.Time
	Confirmed time.Time
}

// Set replaces the zones to be copied. What is on disk is held when Set returns. Of a
// zone that its catalog lists no more nothing is kept (RFC 9432 section 5.3); where the
// catalog itself is gone as well, somebody may have left it out by mistake.
func (in *In) Set(zones []Incoming) {
	in.mu.Lock()
	defer in.mu.Unlock()
	next := make(map[string]*copied, len(zones))
	for i := range zones {
		z := &zones[i]
		if old := in.zones[z.Name]; old != nil && old.want.equal(z) {
			next[z.Name] = old
			continue
		}
		next[z.Name] = in.open(*z, in.zones[z.Name])
	}
	for _, name := range slices.Sorted(maps.Keys(in.zones)) {
		old := in.zones[name]
		if next[name] != old {
			in.gone = append(in.gone, old)
		}
		if next[name] == nil && next[old.want.Listed.Catalog] != nil {
			old.forget()
		}
	}
	in.zones = next
	in.poke()
}

// poke lets Run look at the zones again.
func (in *In) poke() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// open makes a zone, with the version on disk where there is a good one, else with the
// one held so far: a disk that failed is no reason to lose it.
func (in *In) open(want Incoming, old *copied) *copied {
	z := &copied{in: in, want: want, wake: make(chan struct{}, 1)}
	now := in.c.Now()
	z.state = restored(len(want.Primaries), nil, time.Time{}, now)
	z.held.Unserved = "not received yet"
	kept, err := in.shelf.get(want.Name)
	if err != nil {
		in.c.Log.Error("zone on disk is not used", "zone", want.Name, "err", err)
	}
	onDisk := kept.text != nil
	if !onDisk && old != nil {
		kept = old.keep()
	}
	if kept.text == nil || !kept.listed.becomes(want.Listed) {
		return z
	}
	if err := z.restore(kept.text, kept.confirmed, now); err != nil {
		in.c.Log.Error("zone that was kept is not used", "zone", want.Name, "err", err)
		return z
	}
	if !onDisk || !kept.listed.same(want.Listed) {
		z.keepOnDisk(kept.text, kept.confirmed)
	}
	return z
}

// Listed tells how the catalog that a zone is, or was, copied for lists it; the zero
// value where none does.
func (in *In) Listed(zone string) Listing {
	if z := in.find(zone); z != nil {
		return z.want.Listed
	}
	return in.shelf.listed(dns.CanonicalName(zone))
}

// Run copies until the context ends.
func (in *In) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	running := make(map[*copied]context.CancelFunc)
	for {
		in.mu.Lock()
		for _, z := range in.gone {
			if cancel := running[z]; cancel != nil {
				cancel()
				delete(running, z)
			}
		}
		in.gone = nil
		for _, name := range slices.Sorted(maps.Keys(in.zones)) {
			z := in.zones[name]
			if running[z] == nil {
				one, cancel := context.WithCancel(ctx)
				running[z] = cancel
				group.Go(func() { z.run(one) })
			}
		}
		in.mu.Unlock()
		select {
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return nil
		case <-in.wake:
		}
	}
}

// Held returns what is held of a zone; false where it is not to be copied.
func (in *In) Held(zone string) (Held, bool) {
	z := in.find(zone)
	if z == nil {
		return Held{}, false
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.held, true
}

// Refresh asks the primaries of a zone now; false where it is not to be copied.
func (in *In) Refresh(zone string) bool {
	z := in.find(zone)
	if z == nil {
		return false
	}
	z.notified(0, false)
	return true
}

func (in *In) find(zone string) *copied {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.zones[dns.CanonicalName(zone)]
}

// notified judges a NOTIFY (RFC 1996 section 3.10): it counts from an address of a
// primary, or, where the zone has a key, signed with that. Its SOA is a hint only;
// the primary is asked in any case.
func (in *In) notified(r *Request, from netip.Addr) int {
	z := in.find(r.q.name)
	if z == nil {
		return dns.RcodeNotAuth
	}
	known := slices.ContainsFunc(z.want.Primaries, func(p netip.AddrPort) bool { return p.Addr() == from.Unmap() })
	if z.want.Key != "" {
		known = r.keyName() == dns.CanonicalName(z.want.Key)
	}
	if !known {
		in.c.Log.Warn("NOTIFY from somebody who is no primary", "zone", z.want.Name, "peer", from.String())
		return dns.RcodeRefused
	}
	z.notified(r.serial, r.has)
	return dns.RcodeSuccess
}
