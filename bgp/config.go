package bgp

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/bgp/guard"
	"rhumb/bgp/rpki"
	"rhumb/placement"
)

// Config is what a Speaker is made of.
type Config struct {
	Site       string
	SiteNumber uint16 // marks our routes: large community ASN:1:SiteNumber
	Node       string
	ASN        uint32
	// MarkerASN administers the markers; 0 is ASN. It is set where each site has
	// an AS of its own, as RFC 6382 recommends for anycast.
	MarkerASN uint32
	RouterID  netip.Addr
	Peers     []Peer
	Port      int          // 0 is 179, NoListener dials only
	Listen    []netip.Addr // empty means all
	// Mode Observe keeps this node from acting whatever the fleet says.
	Mode placement.Mode
	// Engine, when nil, is a GoBGP which Run starts and closes, or with Kernel
	// the kernel's routes, with a GoBGP which only listens to Peers if there are any.
	Engine Engine
	Kernel *KernelConfig
	// Slots and Announcer reach the store; nil where there is none, and then
	// only a witness can stand for a Slot.
	Slots     Slots
	Announcer Announcer
	// NextHop4 and NextHop6 are announced as next hops; zero means the
	// session's own address, which fits only routes of the session's family.
	NextHop4, NextHop6 netip.Addr
	// Addresses are the addresses to bind besides those of the site's clusters
	// and VIPs; each belongs to the prefix which contains it.
	Addresses []netip.Addr
	// Host binds addresses; nil leaves them to others and checks none.
	Host Host
	// Listening tells why nobody answers on a prefix's address, or nil. It is
	// asked each second from the loop, so it must answer from memory.
	Listening func(netip.Prefix) error
	Timing    guard.Timing
	// InUse tells whether clients' sessions on an address are still served here;
	// their packets come by other ways once the route is withdrawn. It is asked
	// each second, from the loop, while an address waits to leave lo. Nil: never.
	InUse func(netip.Addr) bool
	// Look looks once through a peer which has a Probe; nil is the function Look.
	Look func(context.Context, Probe) error
	// NodeGShut is how long a node that is drained alone stands at gshut (10 s).
	NodeGShut time.Duration
	// FIBWait is how long routers may need to forget a withdrawn route (2 s).
	FIBWait time.Duration
	// Renewed tells when the store last renewed what this node announces: for a while
	// after it, others may count on us. Nil: nobody counts.
	Renewed func() time.Time
	// Held tells whether the store, as far as it is seen, shows a Slot of this site for
	// the prefix; true where nothing is seen. Nil: what was granted is believed.
	Held func(netip.Prefix) bool
	// RPKI judges our origins before they are announced for the first time, and Known
	// remembers which were; nil judges nothing, and remembers nothing.
	RPKI  *rpki.Source
	Known *rpki.Known
	// Memory keeps over a restart what is announced; nil forgets it.
	Memory *Memory
	// Twin marks what is announced as an input-delayed twin's, whom others do not count.
	Twin bool
	// MaxAnnounced is the ceiling of announced prefixes; 0 is none.
	MaxAnnounced int
	// Events is called for each transition from the loop; it must not block.
	Events func(Event)
	// BFDEvents is called for each change of a BFD session; it must not block. Nil: nobody is told.
	BFDEvents  func(BFDEvent)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Slots grants the right to be silent.
type Slots interface {
	// TakeSlot returns the Slot of this site for the prefix, the one it already
	// holds included, if the announcements seen are unchanged. An error which
	// is a *placement.Refusal means no; any other means that the store is away.
	TakeSlot(ctx context.Context, prefix placement.Prefix, site, cause string, seen []placement.Announced) (placement.Slot, error)
}

// Announcer tells the fleet what this node announces.
type Announcer interface {
	// SetAnnounced publishes a step; it does not block, and repeats until the
	// store has it.
	SetAnnounced(placement.Announced)
	// LeaveNode drops this node's key on condition that another node's of the
	// same site, as seen, still stands.
	LeaveNode(ctx context.Context, own placement.Announced, seen []placement.Announced) error
	// FreeSlot gives a site's Slot back; holding none is no error.
	FreeSlot(ctx context.Context, prefix netip.Prefix, site string) error
}
