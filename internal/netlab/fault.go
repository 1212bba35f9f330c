package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FaultKind names a way to break a node.
type FaultKind string

// The kinds of fault.
const (
	Kill      FaultKind = "kill"      // SIGKILL to every process, then as Cut
	Cut       FaultKind = "cut"       // its links down at both ends; processes live
	Slow      FaultKind = "slow"      // Delay more on its lines, each way
	Flap      FaultKind = "flap"      // as Cut, on and off every Delay
	Lossy     FaultKind = "lossy"     // Share of the packets on its links lost, each way
	Mute      FaultKind = "mute"      // what it sends is lost, what it is sent arrives
	Blackhole FaultKind = "blackhole" // packets from or to Prefixes vanish inside it
)

// Fault is one thing that is broken.
type Fault struct {
	Kind     FaultKind      `json:"kind"`
	Node     string         `json:"node"`
	Towards  string         `json:"towards,omitempty"` // only on links to this node
	Delay    time.Duration  `json:"delay,omitempty"`   // of Slow (200 ms) and Flap (2 s)
	Share    float64        `json:"share,omitempty"`   // of Lossy
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Since    time.Time      `json:"since"`
}

// Defaults of "rhumb lab slow" and "rhumb lab flap".
const (
	slowDelay  = 200 * time.Millisecond
	flapPeriod = 2 * time.Second
)

// touches reports whether the fault concerns a link, and whether its node is the
// link's A.
func (f *Fault) touches(l Link) (first, ok bool) {
	switch {
	case l.A.Node == f.Node && (f.Towards == "" || f.Towards == l.B.Node):
		return true, true
	case l.B.Node == f.Node && (f.Towards == "" || f.Towards == l.A.Node):
		return false, true
	}
	return false, false
}

// effects is what all faults together do to a Topology: a pure function of both,
// so that healing is nothing but computing it without the healed.
type effects struct {
	down    []bool          // by link
	impair  [][2]Impairment // by link: A to B, B to A
	filters map[string]filter
}

// filter is what a host drops.
type filter struct {
	ifs   map[string]float64 // share of what comes in by an interface
	holes []netip.Prefix
}

// activeFault is a fault with the phase of its flapping.
type activeFault struct {
	Fault
	up   bool // of Flap: in its good phase
	stop func()
}

// effectsOf computes what a list of faults does. Delays add up, losses combine as
// independent ones, and a link is down as long as any fault wants it down.
func effectsOf(t Topology, faults []*activeFault) effects {
	e := effects{
		down: make([]bool, len(t.Links)), impair: make([][2]Impairment, len(t.Links)),
		filters: map[string]filter{},
	}
	for i, l := range t.Links {
		e.impair[i] = [2]Impairment{l.Impair, l.Impair}
	}
	for _, f := range faults {
		for i, l := range t.Links {
			if first, ok := f.touches(l); ok {
				e.break1(i, l, f, first)
			}
		}
		if f.Kind == Blackhole {
			e.filters[f.Node] = e.filters[f.Node].hole(f.Prefixes)
		}
	}
	return e
}

// break1 applies one fault to one link; first tells which end is the faulty one.
func (e *effects) break1(i int, l Link, f *activeFault, first bool) {
	out := 1 // the direction which leaves the faulty node
	far, near := l.A, l.B
	if first {
		out, far, near = 0, l.B, l.A
	}
	imp := &e.impair[i]
	switch f.Kind {
	case Kill, Cut:
		e.down[i] = true
	case Flap:
		e.down[i] = e.down[i] || !f.up
	case Slow:
		imp[0].Delay += f.Delay
		imp[1].Delay += f.Delay
	case Lossy:
		if l.Line {
			imp[0].Loss, imp[1].Loss = both(imp[0].Loss, f.Share), both(imp[1].Loss, f.Share)
			return
		}
		e.lose(near.Node, near.ifName(far), f.Share)
		e.lose(far.Node, far.ifName(near), f.Share)
	case Mute:
		if l.Line {
			imp[out].Loss = 1
			return
		}
		e.lose(far.Node, far.ifName(near), 1)
	}
}

// both is the loss of two independent losses.
func both(a, b float64) float64 { return 1 - (1-a)*(1-b) }

// lose makes a host drop a share of what comes in by an interface: the means for
// links without a line, whose frames nothing of ours carries.
func (e *effects) lose(node, iface string, share float64) {
	f := e.filters[node]
	if f.ifs == nil {
		f.ifs = map[string]float64{}
	}
	f.ifs[iface] = both(f.ifs[iface], share)
	e.filters[node] = f
}

// hole adds prefixes, keeping those that no other contains.
func (f filter) hole(prefixes []netip.Prefix) filter {
	for _, p := range prefixes {
		p = p.Masked()
		covers := func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }
		if slices.ContainsFunc(f.holes, covers) {
			continue
		}
		f.holes = slices.DeleteFunc(slices.Clone(f.holes), func(q netip.Prefix) bool {
			return p.Bits() <= q.Bits() && p.Contains(q.Addr())
		})
		f.holes = append(f.holes, p)
	}
	slices.SortFunc(f.holes, comparePrefix)
	return f
}

// faults is the state of what is broken; mu covers it and the work of changing
// the kernel to match.
type faults struct {
	mu     sync.Mutex
	active []*activeFault
	down   map[int][2]linkState // links that are down, with what their ends had
	filter map[string]bool      // hosts which have a filter
	links  []Link               // as declared, but for what Impair replaced; nil: as declared
	closed bool
}

// init makes the maps; it is separate so that Net stays a plain literal in tests.
func (f *faults) init() {
	f.down = map[int][2]linkState{}
	f.filter = map[string]bool{}
}

// stop ends flapping and refuses further faults.
func (f *faults) stop() {
	f.mu.Lock()
	f.closed = true
	active := f.active
	f.mu.Unlock()
	for _, a := range active {
		a.stop()
	}
}

// checkFault fills in defaults and says what is wrong with a fault here.
func (n *Net) checkFault(f *Fault) error {
	if _, err := n.Host(f.Node); err != nil {
		return err
	}
	switch {
	case f.Kind == Slow && f.Delay == 0:
		f.Delay = slowDelay
	case f.Kind == Flap && f.Delay == 0:
		f.Delay = flapPeriod
	}
	fits := func(l Link) bool { _, ok := f.touches(l); return ok && (f.Kind != Slow || l.Line) }
	switch f.Kind {
	case Kill, Cut, Slow, Flap, Lossy, Mute:
		if !slices.ContainsFunc(n.Topology.Links, fits) {
			return fmt.Errorf("netlab: %s %s: it has no link for that", f.Kind, f.Node)
		}
	case Blackhole:
		if len(f.Prefixes) == 0 {
			return fmt.Errorf("netlab: blackhole %s: no prefix", f.Node)
		}
	default:
		return fmt.Errorf("netlab: no fault of kind %q", f.Kind)
	}
	if f.Delay < 0 || f.Share < 0 || f.Share > 1 || (f.Kind == Lossy && f.Share == 0) {
		return fmt.Errorf("netlab: %s %s: delay %s, share %v", f.Kind, f.Node, f.Delay, f.Share)
	}
	return nil
}

// Break adds a fault. Faults add up; the same kind at the same node replaces.
func (n *Net) Break(f Fault) error {
	if err := n.checkFault(&f); err != nil {
		return err
	}
	f.Since = time.Now()
	if f.Kind == Kill {
		if err := n.hosts[f.Node].Signal(unix.SIGKILL); err != nil {
			return err
		}
	}
	n.remove(func(a *activeFault) bool {
		return a.Kind == f.Kind && a.Node == f.Node && a.Towards == f.Towards
	})
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	if n.faults.closed {
		return errors.New("netlab: break: the net is closed")
	}
	a := &activeFault{Fault: f, stop: func() {}}
	if f.Kind == Flap {
		n.flap(a)
	}
	n.faults.active = append(n.faults.active, a)
	return n.applyFaults()
}

// flap toggles a fault until its stop is called, which waits for the last turn.
func (n *Net) flap(a *activeFault) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	a.stop = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(a.Delay)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n.toggle(a)
			case <-ctx.Done():
				return
			}
		}
	}()
}

// toggle turns a flapping fault to its other phase. It is called by that fault's
// own goroutine only, which ends before the fault is forgotten.
func (n *Net) toggle(a *activeFault) {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	a.up = !a.up
	if err := n.applyFaults(); err != nil {
		n.log.Error("flapping failed", "node", a.Node, "err", err)
	}
}

// remove takes faults out of the list without changing the kernel yet.
func (n *Net) remove(which func(*activeFault) bool) (removed int) {
	n.faults.mu.Lock()
	var gone []*activeFault
	n.faults.active = slices.DeleteFunc(n.faults.active, func(a *activeFault) bool {
		if which(a) {
			gone = append(gone, a)
		}
		return which(a)
	})
	n.faults.mu.Unlock()
	for _, a := range gone { // not under the lock, which its last turn may want
		a.stop()
	}
	return len(gone)
}

// Heal undoes every fault at the node, or towards it; the empty name heals all.
// When it returns, links, addresses and static routes are as they were; processes
// that were killed are the caller's to start again.
func (n *Net) Heal(node string) error {
	if _, err := n.Host(node); err != nil && node != "" {
		return err
	}
	n.remove(func(a *activeFault) bool { return node == "" || a.Node == node || a.Towards == node })
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	if err := n.applyFaults(); err != nil {
		return err
	}
	return n.settleAll()
}

// Lift undoes one fault and leaves the others at its node as they are.
func (n *Net) Lift(kind FaultKind, node, towards string) error {
	if n.remove(func(a *activeFault) bool { return a.Kind == kind && a.Node == node && a.Towards == towards }) == 0 {
		return fmt.Errorf("netlab: lift: %s has no fault %s", node, strings.TrimSpace(string(kind)+" "+towards))
	}
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	if err := n.applyFaults(); err != nil {
		return err
	}
	return n.settleAll()
}

// Impair replaces what every line does when nothing is broken, as of gives it for
// a declared link: a net may be brought up fast and moved apart afterwards.
func (n *Net) Impair(of func(Link) Impairment) error {
	links := slices.Clone(n.Topology.Links)
	for i := range links {
		if links[i].Line {
			links[i].Impair = of(links[i])
		}
	}
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	n.faults.links = links
	return n.applyFaults()
}

// Faults lists what is broken, the oldest first.
func (n *Net) Faults() []Fault {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	var all []Fault
	for _, a := range n.faults.active {
		all = append(all, a.Fault)
	}
	return all
}

// applyFaults makes the kernel match the active faults. Callers hold the lock.
// One failure does not keep the rest from being done.
func (n *Net) applyFaults() error {
	t := n.Topology
	if n.faults.links != nil {
		t.Links = n.faults.links
	}
	e := effectsOf(t, n.faults.active)
	var errs []error
	for i, l := range n.links {
		if l.line != nil {
			view := LineView{line: l.line}
			errs = append(errs, view.SetImpair(e.impair[i][0], e.impair[i][1]))
		}
		errs = append(errs, n.setLink(i, e.down[i]))
	}
	for _, node := range n.Topology.Nodes {
		errs = append(errs, n.setFilter(node.Name, e.filters[node.Name]))
	}
	return errors.Join(errs...)
}

// setLink takes a link down or up at both ends, if it is not so already.
func (n *Net) setLink(i int, down bool) error {
	l := n.links[i].Link
	saved, isDown := n.faults.down[i]
	a, b := n.hosts[l.A.Node], n.hosts[l.B.Node]
	switch {
	case down && !isDown:
		first, err1 := a.lower(l.A.ifName(l.B))
		second, err2 := b.lower(l.B.ifName(l.A))
		n.faults.down[i] = [2]linkState{first, second}
		return errors.Join(err1, err2)
	case !down && isDown:
		delete(n.faults.down, i)
		// Both ends first: a route over a link without carrier is not the same.
		return errors.Join(a.linkUp(l.A.ifName(l.B)), b.linkUp(l.B.ifName(l.A)),
			a.restore(saved[0]), b.restore(saved[1]))
	}
	return nil
}

// setFilter replaces a host's filter, leaving alone the hosts that never had one:
// most topologies are healthy and need no nftables at all.
func (n *Net) setFilter(node string, f filter) error {
	empty := len(f.ifs) == 0 && len(f.holes) == 0
	if empty && !n.faults.filter[node] {
		return nil
	}
	n.faults.filter[node] = !empty
	return n.hosts[node].setFilter(f)
}
