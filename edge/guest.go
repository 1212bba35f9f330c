package edge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
)

// guests moves the sessions of services of kind handoff. Their sockets are another
// server's; they are here only while they are on the move. Safe for concurrent use.
type guests struct {
	a        *Agent
	lobby    *lobby
	kernel   guestKernel
	parts    *guestParts
	declined *declines
	gen      atomic.Uint32
	slots    chan struct{}      // hand-offs under way at once, as giver
	at       func(point string) // tests are told how far a hand-off is; nil: nobody is

	mu     sync.Mutex
	moving map[frame.Key]string // services of sessions on the move, both ways
}

// guestSlots is fewer than our own sessions have: guests bring their queues along,
// and what waits behind others' bytes is silent meanwhile.
const guestSlots = 8

// guestMetrics counts what is special about guests; hand-offs are counted with all
// others.
type guestMetrics struct {
	servers *prometheus.GaugeVec   // service
	ends    *prometheus.CounterVec // result
	doubts  *prometheus.CounterVec // result
}

// How taken guests ended, as counted by their taker.
const (
	guestTaken    = "taken"
	guestDeclined = "declined"
	guestReset    = "reset"
)

func newGuestMetrics() *guestMetrics {
	return &guestMetrics{
		servers: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_handoff_servers",
			Help: "Servers connected to the hand-off socket, by service."}, []string{"service"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_handoff_takes_total",
			Help: "Sessions of kind handoff offered to this site, by how that ended: taken, declined, or reset because the server died in the middle."}, []string{"result"}),
		doubts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_handoff_doubts_total",
			Help: "Sessions of kind handoff whose agent went away in the middle of their hand-off, by what its next process found: away, back, lost, taken, dropped."}, []string{"result"}),
	}
}

func (m *guestMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.servers, m.ends, m.doubts}
}

func newGuests(a *Agent) *guests {
	g := &guests{a: a, kernel: linuxKernel(), parts: newGuestParts(), declined: newDeclines(), slots: make(chan struct{}, guestSlots), moving: map[frame.Key]string{}}
	g.lobby = newLobby(a, a.cfg.Handoff)
	g.gen.Store(rand.Uint32() >> 1)
	return g
}

// Run serves the hand-off socket until the context ends. Without it nothing else
// stops, so an error is told and no more.
func (g *guests) Run(ctx context.Context) error {
	if err := g.lobby.run(ctx); err != nil {
		g.a.log.Error("other servers cannot give away their sessions", "err", err)
	}
	return nil
}

// guestVIPs maps the addresses of services of kind handoff.
func guestVIPs(services []Service) map[netip.AddrPort]*Service {
	out := map[netip.AddrPort]*Service{}
	for _, s := range services {
		if s.Kind != KindHandoff {
			continue
		}
		for _, v := range s.VIPs {
			out[v] = &s
		}
	}
	return out
}

// hands reports whether there is a service of kind handoff of that name.
func (v *view) hands(service string) bool {
	for _, s := range v.guests {
		if s.Name == service {
			return true
		}
	}
	return false
}

// mode is that of the service whose sessions move and to which a key belongs, or "".
func (v *view) mode(k frame.Key) string {
	if s := v.vips[k.VIP]; s != nil {
		return s.Mode
	}
	if s := v.guests[k.VIP]; s != nil {
		return s.Mode
	}
	return ""
}

// claim takes the right to move a session; unclaim gives it back.
func (g *guests) claim(k frame.Key, service string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, busy := g.moving[k]; busy {
		return false
	}
	g.moving[k] = service
	return true
}

func (g *guests) unclaim(k frame.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.moving, k)
}

// Points between the words of a hand-off.
const (
	guestShipped = "shipped" // the giver's agent has sent the offer
	guestTold    = "told"    // it has told its server commit, and not the taker yet
	guestSent    = "sent"    // it has told the taker
	guestBegun   = "begun"   // the taker's agent has noted that it is about to activate
	guestSpoken  = "spoken"  // the session speaks there
	guestNoted   = "noted"   // that is noted, and nobody told
	guestSaid    = "said"    // the giver's agent is told, the taker's server not
)

// reached tells tests.
func (g *guests) reached(point string) {
	if g.at != nil {
		g.at(point)
	}
}

// nextGen numbers hand-offs; 0 stands for none.
func (g *guests) nextGen() uint32 {
	for {
		if n := g.gen.Add(1); n != 0 {
			return n
		}
	}
}

// epoch rises with each hand-off of a session, whichever site begins it: the clock,
// or more than what came with the session. An owner's agent that has forgotten is at
// worst refused by a site that has not, for as long as that remembers.
func (g *guests) epoch(k frame.Key, now time.Time) uint64 {
	t := g.a.tab
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(uint64(now.UnixMilli()), t.taken[k].epoch+1)
}

func (g *guests) forget(now time.Time) {
	g.parts.forget(now)
	g.declined.forget(now)
}

// pulled answers another site's wish for a session.
func (g *guests) pulled(ctx context.Context, svc *Service, k frame.Key, peer string) error {
	a := g.a
	if svc.Mode != ModeAct {
		a.m.transfers.WithLabelValues(a.cfg.Site, peer, resultObserve).Inc()
		return errObserve
	}
	if !a.drainsTo(peer) && !a.inOrder(k, peer) {
		return fmt.Errorf("edge: %s may not pull this session", peer)
	}
	return g.give(ctx, svc, k, peer, func() {})
}

// push gives away the sessions of all services that have a server here to ask. It waits for
// none that is in doubt: the drain goes on.
func (g *guests) push(ctx context.Context, d *drain) {
	a := g.a
	if a.cfg.Flows == nil {
		return
	}
	v, targets := a.view.Load(), a.targets(d)
	var vips []netip.AddrPort
	for vip, s := range v.guests {
		if s.Mode == ModeAct && len(g.lobby.callers(s.Name)) > 0 {
			vips = append(vips, vip)
		}
	}
	if len(vips) == 0 || len(targets) == 0 {
		return
	}
	flows, err := a.cfg.Flows(vips)
	if err != nil {
		a.log.Warn("list sessions of other servers", "err", err)
	}
	slices.SortFunc(flows, frame.Key.Compare)
	var wg sync.WaitGroup
	for _, k := range flows {
		order := rendezvous(k, targets)
		if len(order) == 0 || !d.tries.due(k, time.Now()) {
			continue
		}
		wg.Add(1)
		freed := sync.OnceFunc(wg.Done)
		a.wg.Go(func() {
			defer freed()
			switch err := g.give(ctx, v.guests[k.VIP], k, order[0].Name, freed); {
			case err == nil:
				d.moved.Add(1)
			case !errors.Is(err, errClaimed):
				d.kept.Add(1)
				d.tries.refused(k, time.Now())
			}
		})
	}
	wg.Wait()
}

// takes reports whether sessions of a service may be asked for: there is a server to
// show them to.
func (g *guests) takes(svc *Service) bool { return svc == nil || len(g.lobby.callers(svc.Name)) > 0 }

// Handing is a server of kind handoff as it stands here.
type Handing struct {
	Service string
	Servers int // connected
	Moving  int // sessions on the move, both ways
}

// Handing lists the services of kind handoff, by name.
func (a *Agent) Handing() []Handing {
	g := a.guests
	moving := map[string]int{}
	g.mu.Lock()
	for _, s := range g.moving {
		moving[s]++
	}
	g.mu.Unlock()
	names := map[string]bool{}
	for _, s := range a.view.Load().guests {
		names[s.Name] = true
	}
	var out []Handing
	for name := range names {
		out = append(out, Handing{Service: name, Servers: len(g.lobby.callers(name)), Moving: moving[name]})
	}
	slices.SortFunc(out, func(x, y Handing) int {
		if x.Service < y.Service {
			return -1
		}
		return 1
	})
	return out
}

// reasonOf cuts an error to what a server may be told.
func reasonOf(err error) string {
	text := err.Error()
	return text[:min(len(text), handsock.MaxText)]
}
