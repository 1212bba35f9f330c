package forward

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Forwarded is a flow whose packets arrive here and belong elsewhere.
type Forwarded struct {
	Flow  Flow
	Owner string
	// QUIC tells the protocol: UDP, else TCP.
	QUIC bool
	// Observed means: named only; the kernel reset it.
	Observed       bool
	Packets, Bytes uint64
	Since          time.Time
}

// Flows lists the forwarded flows, in order of client and VIP.
func (f *Forwarder) Flows() []Forwarded {
	f.mu.Lock()
	var list []Forwarded
	for _, table := range []*owners{f.owners, f.udp} {
		for flow, r := range table.flows {
			if r.is == foreign && r.tally.packets > 0 {
				list = append(list, Forwarded{Flow: flow, Owner: r.owner, QUIC: table.proto == protoUDP, Observed: r.watch,
					Packets: r.tally.packets, Bytes: r.tally.bytes, Since: r.since})
			}
		}
	}
	f.mu.Unlock()
	slices.SortFunc(list, func(a, b Forwarded) int {
		return cmp.Or(a.Flow.compare(b.Flow), cmp.Compare(protoOf(a.QUIC), protoOf(b.QUIC)))
	})
	return list
}

// protoOf is the protocol number.
func protoOf(quic bool) byte {
	if quic {
		return protoUDP
	}
	return protoTCP
}

// Arrivals sums up the sessions of this site whose packets came by tunnel in
// the last arrivalLife: it serves them, and its routes no longer do.
type Arrivals struct {
	Flows int
	// Oldest is when the first packet of the longest came.
	Oldest time.Time
	// Packets and Bytes count all that ever came, also of sessions that ended.
	Packets, Bytes uint64
}

const (
	// arrivalLife is how long a session that sends nothing counts as one whose
	// packets arrive elsewhere.
	arrivalLife = time.Minute
	maxArrivals = 1 << 18
)

// arrivals remembers which own sessions' packets came by tunnel. It is under
// the forwarder's lock.
type arrivals struct {
	flows          map[session]arrival
	packets, bytes uint64
}

type arrival struct{ first, last time.Time }

func newArrivals() arrivals { return arrivals{flows: make(map[session]arrival)} }

// arrived notes a packet that is ours.
func (r *receiver) arrived(now time.Time, p *peer, s stray) {
	p.arrivals.Inc()
	r.mu.Lock()
	r.arrivals.note(now, s.session, len(s.packet))
	r.mu.Unlock()
}

func (a *arrivals) note(now time.Time, s session, size int) {
	a.packets++
	a.bytes += uint64(size)
	e, known := a.flows[s]
	if !known {
		if len(a.flows) >= maxArrivals {
			return
		}
		e.first = now
	}
	e.last = now
	a.flows[s] = e
}

// sweep forgets the sessions that sent nothing for arrivalLife.
func (a *arrivals) sweep(now time.Time) {
	maps.DeleteFunc(a.flows, func(_ session, e arrival) bool { return now.Sub(e.last) >= arrivalLife })
}

// Arrivals tells what other sites send here of this site's sessions.
func (f *Forwarder) Arrivals() Arrivals {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := Arrivals{Flows: len(f.arrivals.flows), Packets: f.arrivals.packets, Bytes: f.arrivals.bytes}
	for _, e := range f.arrivals.flows {
		if sum.Oldest.IsZero() || e.first.Before(sum.Oldest) {
			sum.Oldest = e.first
		}
	}
	return sum
}

// Owned counts the sessions which this site's servers have on each VIP, those
// of the host itself included.
func (f *Forwarder) Owned() (map[netip.AddrPort]int, error) {
	counts := make(map[netip.AddrPort]int)
	for vip := range *f.vips.Load() {
		counts[vip] = 0
	}
	err := f.eachOwned(func(s session) { counts[s.flow.VIP]++ })
	return counts, err
}

// eachOwned visits the live local sessions on all VIPs.
func (f *Forwarder) eachOwned(visit func(session)) error {
	err := eachSession(slices.Collect(maps.Keys(*f.vips.Load())), liveStates, func(flow Flow) { visit(session{protoTCP, flow}) })
	if err != nil {
		return err
	}
	q := f.quic.Load()
	return eachQUIC(func(flow Flow) {
		if v, ours := q.VIPs[flow.VIP]; ours && v.Owner == ByFlow {
			visit(session{protoUDP, flow})
		}
	})
}
