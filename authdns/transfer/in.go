package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
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

// version is what came of asking a primary, checked.
type version struct {
	kind  Kind // KindNone: what is held is the newest
	soa   *dns.SOA
	text  []byte
	names []string
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

// fetch asks a primary and checks what it sends. It changes nothing.
func (z *copied) fetch(ctx context.Context, addr netip.AddrPort) (*version, error) {
	p, err := z.primary(addr)
	if err != nil {
		return nil, err
	}
	in, err := p.fetch(ctx, z.want.Name, z.soa)
	if err != nil {
		return nil, err
	}
	if z.soa != nil && !later(in.soa.Serial, z.soa.Serial) {
		if in.soa.Serial != z.soa.Serial {
			return nil, fmt.Errorf("has serial %d, older than %d which is held", in.soa.Serial, z.soa.Serial)
		}
		return &version{kind: KindNone, soa: z.soa}, nil
	}
	v, err := z.build(in)
	var wrong *misfit
	if errors.As(err, &wrong) {
		// The difference does not fit to what is held: the whole zone will.
		if in, err = p.whole(ctx, z.want.Name, err); err == nil {
			v, err = z.build(in)
		}
	}
	return v, err
}

// misfit is a difference that cannot be applied.
type misfit struct{ err error }

func (m *misfit) Error() string { return m.err.Error() }

// build makes a version of what came, and judges it.
func (z *copied) build(in *incoming) (*version, error) {
	c := newContents(in.soa, in.whole)
	if in.deltas != nil {
		var err error
		if c, err = readContents(z.want.Name, z.held.Data); err == nil {
			err = c.apply(in.deltas)
		}
		if err != nil {
			return nil, &misfit{err}
		}
	}
	v := &version{kind: in.kind(), soa: c.soa, text: c.text()}
	var err error
	if v.names, err = z.check(v.text); err != nil {
		return nil, &refused{fmt.Errorf("serial %d is wrong: %w", v.soa.Serial, err)}
	}
	slices.Sort(v.names)
	if err := z.shrinks(v.names); err != nil {
		return nil, &refused{err}
	}
	return v, nil
}

// refused is why a version is not taken that came whole.
type refused struct{ err error }

func (r *refused) Error() string { return r.err.Error() }

// check judges a version, and returns its names. What counts of a catalog is what it lists.
func (z *copied) check(text []byte) ([]string, error) {
	names, err := z.in.c.Check(z.want.Name, text)
	if err != nil || !z.want.Catalog {
		return names, err
	}
	c, err := ReadCatalog(z.want.Name, text)
	if err != nil {
		return nil, err
	}
	return c.entries(), nil
}

// shrinks refuses a version that loses too much: a primary whose disk was full, or
// whose generator found an empty table, sends a zone which is well-formed and has
// a higher serial. Of a catalog one zone may go at any time, or get another label, as
// happens where zones are few; but it may not lose the last.
func (z *copied) shrinks(names []string) error {
	lost := 0
	for _, n := range z.names {
		if _, ok := slices.BinarySearch(names, n); !ok {
			lost++
		}
	}
	kept, what := len(z.names)-lost, "names left"
	if z.want.Catalog {
		if what = "listed zones left with their labels"; lost <= 1 && len(names) > 0 {
			return nil
		}
	}
	if float64(kept) < z.want.KeepNames*float64(len(z.names)) {
		return fmt.Errorf("%d of %d %s, want %.0f %%: the version is not taken (rule shrink; allow_shrink lets it pass)",
			kept, len(z.names), what, 100*z.want.KeepNames)
	}
	return nil
}

// primary makes the client of an address.
func (z *copied) primary(addr netip.AddrPort) (*primary, error) {
	p := &primary{addr: addr, source: z.in.c.Source, now: z.in.c.Now, connect: z.in.c.Connect}
	if z.want.Key != "" {
		if p.key = z.in.c.Keys.Find(z.want.Key); p.key == nil {
			return nil, fmt.Errorf("no key %s on this node", z.want.Key)
		}
	}
	if z.want.TLS != "" {
		p.tls = &tls.Config{}
		if z.in.c.TLS != nil {
			p.tls = z.in.c.TLS.Clone()
		}
		p.tls.ServerName, p.tls.NextProtos, p.tls.MinVersion = z.want.TLS, []string{"dot"}, tls.VersionTLS13
	}
	return p, nil
}
