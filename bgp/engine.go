package bgp

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// Engine is the seam to whoever speaks BGP: our own speaker, or the kernel
// routes which a local BIRD or FRR picks up. Values only; an Engine decides
// nothing.
type Engine interface {
	// Announce originates a route.
	Announce(ctx context.Context, r Route) error
	// SetAttrs replaces the attributes of an announced route without ever
	// withdrawing it between (RFC 4271 section 3.1: the newer replaces the older).
	SetAttrs(ctx context.Context, r Route) error
	// Withdraw takes a route back; one which is not there is no error.
	Withdraw(ctx context.Context, prefix netip.Prefix) error
	// PeerState tells how the peers are, and which routes of our own are
	// really held for them.
	PeerState(ctx context.Context) (State, error)
	// Watch calls fn for each event until the context ends. fn must not block,
	// and is not running any more when Watch has returned.
	Watch(ctx context.Context, fn func(Change)) error
}

// outlives tells whether an engine's routes stay when the process goes. What it
// holds at the start is then where the ladders begin, and an exit leaves it there.
func outlives(e Engine) bool {
	l, ok := e.(interface{ Outlives() bool })
	return ok && l.Outlives()
}

// State is what an Engine holds at one moment.
type State struct {
	Peers  []PeerState // in order of address
	Routes []Route     // our own, in order of prefix
}

// PeerState is one neighbour.
type PeerState struct {
	Address     netip.Addr
	ASN         uint32
	State       string // as RFC 4271 section 8.2.2 names it, lower case
	Established bool
	Since       time.Time
}

// Change is an event of an Engine: a peer's state, or a route which a peer
// shows us. Exactly one field is set.
type Change struct {
	Peer    *PeerState
	Learned *Learned
}

// Learned is a route that a peer advertises to us, or takes back.
type Learned struct {
	Peer      netip.Addr
	Route     Route
	Withdrawn bool
	// ID tells paths of one prefix apart where the peer sends several (RFC 7911).
	ID uint32
}

// Route is a prefix and how it is announced.
type Route struct {
	Prefix netip.Prefix
	Attrs  Attrs
	// Step is the rung which the attributes stand for. An engine whose routes
	// outlive the process tells it of each route it holds; on the wire there is
	// nothing of it.
	Step placement.Step
}

// LargeCommunity is an RFC 8092 community: administrator and two values.
type LargeCommunity [3]uint32

// Attrs are the path attributes that we set. Communities are kept sorted, so
// that equal meaning compares equal.
type Attrs struct {
	Prepend          int    // copies of our AS besides the one that eBGP adds
	MED              uint32 // 0 is not sent; non-transitive, so only this router weighs it
	Communities      []uint32
	LargeCommunities []LargeCommunity
	NoExport         bool
	// NextHop zero means the session's own address.
	NextHop netip.Addr
}

// GracefulShutdown is the well-known community 65535:0 (RFC 8326).
const GracefulShutdown uint32 = 65535 << 16

// noExport is the well-known community 65535:65281 (RFC 1997).
const noExport uint32 = 65535<<16 | 65281

// Equal compares attributes by meaning. A zero next hop equals an unspecified one.
func (a Attrs) Equal(b Attrs) bool {
	return a.Prepend == b.Prepend && a.MED == b.MED && a.NoExport == b.NoExport &&
		slices.Equal(a.Communities, b.Communities) &&
		slices.Equal(a.LargeCommunities, b.LargeCommunities) &&
		specified(a.NextHop) == specified(b.NextHop)
}

// specified makes the two ways to say "the session's own" one.
func specified(a netip.Addr) netip.Addr {
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}

// GShut tells whether the route asks to be avoided (RFC 8326).
func (a Attrs) GShut() bool { return slices.Contains(a.Communities, GracefulShutdown) }

// comparePrefix orders by address, then the shorter prefix first.
func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
