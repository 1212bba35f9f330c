package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A datagram goes by a relay inside another:
//
//	header of kindRelay, two hops, sealed for the relay
//	the 4-octet id of the site it is for
//	header of any other kind, one hop, sealed for that site
//	its body and its tag
//	tag for the relay
//
// The relay checks its own tag and that what is inside says the same sender, and one hop.
// It sends that on as it is: only the two ends have the key, so a relay can drop and
// delay, as any router, and no more. It is no open proxy: it takes from sites of the group
// and sends to sites of the group, at their tunnels' addresses. There is no loop: what it
// sends has one hop, whatever the first sender wished, and each header was made by that
// sender.
const (
	relayHead = headerSize + len(siteID{})
	// relayExtra is what a relay adds to the tunnel's own overhead.
	relayExtra = relayHead + tagSize
	// leastRoom is the smallest body that a relay is believed when it speaks of a narrow
	// path: less would cut every packet into more parts than there may be.
	leastRoom = leastMTU - 8 - 40 - overhead
	// relayRate is what a site passes on for others, octets a second, and at once: 100 Mbit/s.
	relayRate = 100_000_000 / 8
	// tellRate is how many refusals a second are told to those concerned, all together.
	tellRate = 50
)

// Why a datagram wasn't passed on, on the wire and as a label.
const (
	refusedOff     = 1 + iota // this site relays nothing
	refusedUnknown            // no such site in the group, or the sender itself
	refusedPath               // the path from here to it is broken, too
)

// Labels of rhumb_edge_relay_dropped_total.
const (
	droppedOff     = "off"
	droppedUnknown = "unknown"
	droppedPath    = "path"
	droppedBudget  = "over_budget"
	droppedSize    = "size"
)

// route is how datagrams reach a peer; none is the direct path. It is immutable but for
// the counts.
type route struct {
	via   string
	room  int // largest body, by the relay's word; 0: it said nothing
	since time.Time
	*detoured
}

// detoured counts what went by a relay since the direct path was left.
type detoured struct{ packets, octets atomic.Uint64 }

// relayTo returns the route in use for a peer and the relay, nil for the direct path. A
// relay that has left the group is none.
func (f *Forwarder) relayTo(p *peer) (*route, *peer) {
	r := p.route.Load()
	if r == nil {
		return nil, nil
	}
	via := f.peers.Load().find(r.via)
	if via == nil || via == p {
		return nil, nil
	}
	return r, via
}

// roomTo is the size of the largest body that reaches a peer in one datagram.
func (f *Forwarder) roomTo(now time.Time, p *peer, r *route, via *peer) int {
	if via == nil {
		return p.room(now, f.mtu)
	}
	room := via.room(now, f.mtu) - relayExtra
	if r.room > 0 {
		room = min(room, r.room)
	}
	return room
}

// carrier passes on what is for others. It belongs to the tunnel reader.
type carrier struct {
	octets bucket // budget; rate 0: this site relays nothing
	tells  bucket
	buf    []byte
}

// passOn handles a datagram which a peer wants passed on to another. It takes no lock and
// allocates nothing.
func (r *receiver) passOn(now time.Time, from *peer, body []byte) error {
	if len(body) < len(siteID{}) {
		return errShort
	}
	target, inner := siteID(body[:4]), body[4:]
	h, err := readHead(inner)
	switch {
	case err != nil:
		return err
	case h.kind == kindRelay:
		return errHops
	case h.sender != from.id:
		return errSender
	}
	to := r.peers.Load().byID[target]
	switch {
	case r.carrier.octets.rate == 0:
		r.refuse(now, from, target, refusedOff, droppedOff)
	case to == nil || to == from:
		r.refuse(now, from, target, refusedUnknown, droppedUnknown)
	// A peer that we ourselves reach by a relay isn't ours to reach for others.
	case to.unreached.Load():
		r.refuse(now, from, target, refusedPath, droppedPath)
	case !r.carrier.octets.takeMany(now, float64(len(inner))):
		r.drop(droppedBudget)
	default:
		r.carry(now, from, to, inner)
	}
	return nil
}

// carry sends a datagram on as it came.
func (r *receiver) carry(now time.Time, from, to *peer, inner []byte) {
	// Once a path was found to be narrow nothing larger is tried: the sender cuts.
	if len(inner)-overhead > to.room(now, largestInput) {
		r.tellNarrow(now, from, to)
		return
	}
	_, err := r.ends.tunnel.conn.WriteToUDPAddrPort(inner, to.Addr)
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		to.path.Store(&path{mtu: pathMTU(to.Addr), until: now.Add(pathLife)})
		r.tellNarrow(now, from, to)
	case err != nil:
		r.complain(fmt.Errorf("forward: pass on to %s: %w", to.Site, err))
	default:
		from.relayed.Inc()
		from.relayedOctets.Add(float64(len(inner)))
	}
}

// drop counts what wasn't passed on.
func (r *receiver) drop(why string) { r.metrics.relay.dropped[why].Inc() }

// refuse drops a datagram and says why.
func (r *receiver) refuse(now time.Time, from *peer, target siteID, why byte, label string) {
	r.drop(label)
	r.carrier.buf = append(append(r.carrier.buf[:0], target[:]...), why)
	r.tell(now, from, kindRefused)
}

// tellNarrow drops a datagram that is larger than the path on, and says how much fits.
func (r *receiver) tellNarrow(now time.Time, from, to *peer) {
	r.drop(droppedSize)
	room := min(max(to.room(now, largestInput), 0), 1<<16-1)
	r.carrier.buf = binary.BigEndian.AppendUint16(append(r.carrier.buf[:0], to.id[:]...), uint16(room))
	r.tell(now, from, kindNarrow)
}

// tell sends a word about a datagram to who wanted it passed on, within bounds. It goes
// directly, since that is how the datagram came.
func (r *receiver) tell(now time.Time, to *peer, k kind) {
	if !r.carrier.tells.take(now) {
		return
	}
	if err := r.sendBy(to, nil, k, r.carrier.buf); err != nil {
		r.complain(fmt.Errorf("forward: tell %s: %w", to.Site, err))
	}
}

// heedRelay hands a hello or a relay's word to the goroutine that decides. One that finds
// it behind is lost: all of them are repeated.
func (r *receiver) heedRelay(p *peer, k kind, body []byte) error {
	n := news{site: p.Site, kind: k}
	var err error
	switch k {
	case kindHello:
		n.hello, err = readHello(body)
	case kindRefused, kindNarrow:
		least := len(siteID{}) + 1
		if k == kindNarrow {
			least++
		}
		if len(body) < least {
			return errShort
		}
		about := r.peers.Load().byID[siteID(body[:4])]
		if about == nil {
			return errSender
		}
		n.about = about.Site
		if k == kindNarrow {
			n.room = max(int(binary.BigEndian.Uint16(body[4:])), leastRoom)
		}
	}
	if err != nil {
		return err
	}
	select {
	case r.news <- n:
	default:
	}
	return nil
}
