package vip

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const (
	// tablePrefix begins the names of our nftables tables: one a lease, in each of the
	// families arp, ip, ip6 and netdev.
	tablePrefix = "rhumb_vip_"

	// fencePriority is before everything that could answer or pass on a packet.
	fencePriority = -320

	// slotBits is the length of a slot: 2^24 ns, 16.8 ms. The permission of the kernel is
	// written in whole slots of the wall clock.
	slotBits = 24

	// slotSlack is how much longer than its slot an element stays. Elements end at
	// a tick of the kernel, which may be 10 ms long, and none may end too early.
	slotSlack = 20 * time.Millisecond

	// stepOf is a change of the wall clock that cannot be slewing.
	stepOf = 5 * time.Millisecond
)

// fence is the kernel's half of a lease: rules that drop whatever would answer for
// its addresses, ARP and neighbour discovery included, outside of the time which is written
// into a set.
//
// That time is absolute. The set holds pairs of an address and a slot of the wall
// clock, and the rules look for the present slot. So a process that was stopped between
// deciding and writing permits a time that is over: nothing. Besides, the elements end by
// a timeout of the kernel's own clock, so that a wall clock set back opens nothing for
// longer than a lease either. Only both at once could, a stop just there and a clock that is
// set back during the stop.
//
// The rules stay when the process ends: who may not answer stays silent.
// Only one goroutine may use a fence.
type fence struct {
	name   string
	device string
	addrs  []netip.Addr
	clock  clock
	conn   *nftables.Conn
	sets   []openSet

	// from and to are the slots that were permitted last, and ahead the wall clock less
	// ours at that time.
	from, to int64
	ahead    time.Duration
}

// openSet is the set of permissions in one family.
type openSet struct {
	set *nftables.Set
	v6  bool
}

// clock is what the fence and the agent read.
type clock interface {
	// now is the time since some moment, on a clock that never stops or steps.
	now() time.Duration
	// wall is the time that the kernel's rules read, in ns since 1970.
	wall() int64
}

// load puts the rules into the kernel, in place of what was there, permitting nothing.
func (f *fence) load() error {
	f.close()
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("vip: open nftables: %w", err)
	}
	f.conn, f.sets, f.from, f.to = conn, nil, 0, 0
	for _, t := range f.tables() {
		conn.AddTable(t) // so that the delete finds one
		conn.DelTable(t)
		f.fill(conn.AddTable(t))
		// A batch each: the kernel acknowledges every message of one before we
		// read the first, and drops what does not fit.
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("vip: load the rules of family %d (netdev needs the egress hook of Linux 5.16): %w", t.Family, err)
		}
	}
	return nil
}

// close leaves the rules and lets go of the socket.
func (f *fence) close() {
	if f.conn != nil {
		_ = f.conn.CloseLasting()
		f.conn = nil
	}
}

// tables are those that the addresses need. The netdev table alone is bound to the device;
// the others judge by whatever device a packet comes or goes, since Linux answers ARP for
// any of its addresses on all of them.
func (f *fence) tables() []*nftables.Table {
	var out []*nftables.Table
	add := func(families ...nftables.TableFamily) {
		for _, family := range families {
			out = append(out, &nftables.Table{Family: family, Name: f.name})
		}
	}
	if slices.ContainsFunc(f.addrs, netip.Addr.Is4) {
		add(nftables.TableFamilyARP, nftables.TableFamilyIPv4, nftables.TableFamilyNetdev)
	}
	if slices.ContainsFunc(f.addrs, netip.Addr.Is6) {
		add(nftables.TableFamilyIPv6)
	}
	return out
}

// fill queues the sets, chains and rules of one table. A packet that belongs to no
// address of ours pays for one look-up and goes on.
func (f *fence) fill(t *nftables.Table) {
	b := &builder{conn: f.conn, table: t, v6: t.Family == nftables.TableFamilyIPv6}
	b.addSets(f.addrs)
	f.sets = append(f.sets, openSet{b.open, b.v6})
	switch t.Family {
	case nftables.TableFamilyARP:
		b.guard(b.base("input", hookARPIn, ""), "asked", arpTarget())
		b.guard(b.base("output", hookARPOut, ""), "told", arpSender())
	case nftables.TableFamilyNetdev:
		// Packet sockets bypass the hooks of ARP: our own announcements pass here.
		egress := b.base("egress", unix.NF_NETDEV_EGRESS, f.device)
		b.guard(egress, "told", append(isARP(), arpSender()...))
	case nftables.TableFamilyIPv4:
		b.addInternet(destination4(), source4())
	case nftables.TableFamilyIPv6:
		in, out := b.addInternet(destination6(), source6())
		b.guard(in, "solicited", append(isICMPv6(typeSolicitation), ndTarget()...))
		b.guard(out, "advertised", append(isICMPv6(typeAdvertisement), ndTarget()...))
	}
}

// permit lets the kernel answer until a moment of our clock, and no longer; whole slots only.
func (f *fence) permit(until time.Duration) error {
	// The wall clock first: a stop between the two shortens what is permitted.
	wall := f.clock.wall()
	now := f.clock.now()
	ahead := time.Duration(wall) - now
	first, last := wall>>slotBits, int64(ahead+until)>>slotBits-1
	if first > last {
		return nil // over already
	}
	stepped := (ahead - f.ahead).Abs() > stepOf
	if f.ahead = ahead; stepped || first < f.from || first > f.to {
		f.from, f.to = first, first-1
		f.flush()
	}
	if last <= f.to {
		return f.commit("permit")
	}
	for _, s := range f.sets {
		if err := f.conn.SetAddElements(s.set, f.elements(s.v6, f.to+1, last, wall)); err != nil {
			return fmt.Errorf("vip: permit: %w", err)
		}
	}
	f.to = last
	return f.commit("permit")
}

// forbid permits nothing from now on.
func (f *fence) forbid() error {
	f.flush()
	f.from, f.to = 0, 0
	return f.commit("forbid")
}

// flush queues the removal of all that is permitted.
func (f *fence) flush() {
	for _, s := range f.sets {
		f.conn.FlushSet(s.set)
	}
}

// commit has the kernel take what was queued. If it will not, somebody may have removed our
// tables, as a firewall does that flushes the ruleset to load its own: they are made
// anew, permitting nothing, and the caller has to repeat.
func (f *fence) commit(what string) error {
	err := f.conn.Flush()
	if err == nil {
		return nil
	}
	if again := f.load(); again != nil {
		return again
	}
	return fmt.Errorf("vip: %s: the rules were made anew: %w", what, err)
}

// elements are the pairs of address and slot for slots first to last.
func (f *fence) elements(v6 bool, first, last, wall int64) []nftables.SetElement {
	var out []nftables.SetElement
	for _, a := range f.addrs {
		if a.Is6() != v6 {
			continue
		}
		for slot := first; slot <= last; slot++ {
			key := binary.NativeEndian.AppendUint64(a.AsSlice(), uint64(slot)<<slotBits)
			life := time.Duration((slot+1)<<slotBits-wall) + slotSlack
			out = append(out, nftables.SetElement{Key: key, Timeout: life})
		}
	}
	return out
}

// Forget removes the rules of leases that are not in keep: those of an earlier
// configuration. Their addresses may then answer wherever they are.
func Forget(keep ...string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("vip: open nftables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("vip: list tables: %w", err)
	}
	for _, t := range tables {
		if lease, ours := strings.CutPrefix(t.Name, tablePrefix); ours && !slices.Contains(keep, lease) {
			conn.DelTable(t)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("vip: remove rules: %w", err)
	}
	return nil
}
