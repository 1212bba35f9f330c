package health

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// The times of a watch over the site's other machines.
const (
	// pulsesMissed is after how many beats a machine is silent, on all networks.
	pulsesMissed = 3
	// pulsesBack is how many, by each network, make it heard again.
	pulsesBack = 3
	// massSilence is how long most machines may be silent at once before it is
	// believed: more likely it is our own network, and the looks go on meanwhile.
	massSilence = time.Second
	// vantageBack is how many beats make a vantage heard again: two seconds of them. Its
	// word is not missed meanwhile, since ours is much the same.
	vantageBack = 40
	// sureAfter is how long a silent vantage has to say in the store that it misses us: then
	// both live, and are only cut off from each other.
	sureAfter = 500 * time.Millisecond
	// forgetAfter is when a machine that is gone is spoken of no more.
	forgetAfter = time.Hour
)

// MachineEvent is a change of another machine of this site. Listen are the addresses
// served there and on no other machine that is heard.
type MachineEvent struct {
	Machine string
	Listen  []netip.AddrPort
	State   UnitState // UnitHere, UnitStalled (it is silent) or UnitLeft
	Cause   string
	// Again is set when it has been silent a short while ago.
	Again bool
	// Vantage is set when it is the machine's health role that is spoken of; Listen are
	// then the addresses there whose process has ended.
	Vantage bool
}

// machine is one that beats, or did.
type machine struct {
	last  pulse          // newest
	via   map[int]uint32 // newest number by each network
	heard time.Duration  // by whatever network
	state UnitState
	back  int // beats since it was silent
	flaps penalty
}

// machines judges the site's other machines by their beats. It is a value for one
// goroutine; times come from the caller and never run backwards.
type machines struct {
	all    map[string]*machine
	massAt time.Duration // since when most are silent; 0: they are not
	events []MachineEvent
	enough int // beats, by each network, that make one heard again
	// of are the vantages on these machines; nil among vantages.
	of *machines
}

func newMachines() *machines {
	return &machines{all: make(map[string]*machine), enough: pulsesBack,
		of: &machines{all: make(map[string]*machine), enough: vantageBack}}
}

// hear takes a beat that came by a network. One that is not newer than the newest by
// the same way is a copy, and proves nothing.
func (m *machines) hear(p pulse, via int, at time.Duration, now time.Time) (fresh bool) {
	if p.vantage && m.of != nil {
		return m.hearVantage(p, via, at, now)
	}
	k := m.all[p.name]
	switch {
	case k == nil:
		k = &machine{state: UnitLeft, via: make(map[int]uint32)} // so that its beginning is told
		m.all[p.name] = k
	case p.incarnation < k.last.incarnation:
		return false
	case p.incarnation > k.last.incarnation:
		clear(k.via)
	case p.number <= k.via[via], k.last.bye:
		return false
	}
	k.via[via] = p.number
	if p.incarnation > k.last.incarnation || p.number > k.last.number {
		k.last = p
	}
	k.heard = at
	switch {
	case p.bye:
		m.tell(p.name, k, UnitLeft, "said goodbye", now)
	case k.state == UnitStalled:
		if k.back++; k.back >= m.enough*max(len(k.via), 1) {
			m.tell(p.name, k, UnitHere, "", now)
		}
	default:
		m.tell(p.name, k, UnitHere, "", now)
	}
	return true
}

// hearVantage takes the beat of a health role. It proves that the machine is there as
// well, whose own beats come from a unit that may have ended. What it says to have ended is
// told when it changes.
func (m *machines) hearVantage(p pulse, via int, at time.Duration, now time.Time) (fresh bool) {
	var before []netip.AddrPort
	if k := m.of.all[p.name]; k != nil {
		before = k.last.listen
	}
	if fresh = m.of.hear(p, via, at, now); !fresh {
		return false
	}
	if k := m.all[p.name]; k != nil && k.state == UnitHere {
		k.heard = at
	}
	if !p.bye && !slices.Equal(before, p.listen) && len(p.listen) > 0 {
		m.events = append(m.events, MachineEvent{Machine: p.name, State: UnitExited, Vantage: true, Cause: "machine " + p.name + ": the process has ended",
			Listen: m.notElsewhere(p.name, p.listen)})
	}
	return true
}

// judge tells who is silent at a time. slack is how long the observer itself stood
// still: deadlines in that pause do not count.
func (m *machines) judge(at, slack time.Duration, now time.Time) {
	if m.of != nil {
		m.of.judge(at, slack, now)
	}
	names := slices.Sorted(maps.Keys(m.all))
	watched, quiet := 0, 0
	for _, name := range names {
		k := m.all[name]
		k.heard = min(k.heard+slack, at)
		switch {
		case k.state == UnitHere:
			watched++
			if at-k.heard > k.last.interval*8/5 {
				quiet++
			}
		case at-k.heard > forgetAfter:
			delete(m.all, name)
		}
	}
	if watched < 2 || quiet*2 <= watched {
		m.massAt = 0
	} else if m.massAt == 0 {
		m.massAt = at
	}
	if m.massAt > 0 && at-m.massAt < massSilence {
		return
	}
	for _, name := range names {
		if k := m.all[name]; k != nil && k.state == UnitHere && at-k.heard > pulsesMissed*k.last.interval {
			k.back = 0
			m.tell(name, k, UnitStalled, fmt.Sprintf("machine %s: no beat for %d ms", name, (at-k.heard).Milliseconds()), now)
		}
	}
}

// tell notes a change; what is steady is no news.
func (m *machines) tell(name string, k *machine, s UnitState, cause string, now time.Time) {
	if k.state == s {
		return
	}
	k.state = s
	e := MachineEvent{Machine: name, State: s, Cause: cause, Listen: m.alone(name, k)}
	if s == UnitStalled {
		e.Again = !k.flaps.reusable(now)
		k.flaps.add(now)
	}
	m.events = append(m.events, e)
}

// alone returns the addresses that no other machine which is heard serves, too: those
// of anycast stand on several, and one that dies does not take them along.
func (m *machines) alone(name string, k *machine) []netip.AddrPort {
	if m.of == nil {
		return nil // of vantages it says what has ended, and that is told by itself
	}
	return m.notElsewhere(name, k.last.listen)
}

// notElsewhere leaves out the addresses that another machine serves as well.
func (m *machines) notElsewhere(name string, listen []netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(listen), func(a netip.AddrPort) bool {
		for other, o := range m.all {
			if other != name && o.state == UnitHere && slices.Contains(o.last.listen, a) {
				return true
			}
		}
		return false
	})
}

// take returns the events since the last call.
func (m *machines) take() []MachineEvent {
	out := m.events
	m.events = nil
	if m.of != nil {
		// Vantages first: whose word counts no more is known when the rest is voted.
		vantages := m.of.take()
		for i := range vantages {
			vantages[i].Vantage = true
		}
		out = append(vantages, out...)
	}
	return out
}

// hearMachines runs the watch over the site's other machines, if there is one. That it
// fails ends nothing: the looks go on.
func (a *Agent) hearMachines(ctx context.Context) {
	if a.cfg.Machines == nil {
		return
	}
	if err := a.cfg.Machines.Run(ctx); err != nil {
		a.cfg.Log.Error("the site's other machines are not heard any more", "err", err)
	}
}

// machine takes what becomes of another machine of this site. Its silence acts at once,
// but it is no more than silence: each address is looked at right away, and a good look,
// or its beats, take it back. One that falls silent again and again has to earn its
// return, as a process does which ends.
func (a *Agent) machine(e MachineEvent, lookNow func(c *cluster)) {
	if e.Vantage && e.State != UnitExited {
		a.vantage(e)
		return
	}
	a.m.units.WithLabelValues("machine "+e.Machine, e.State.String()).Inc()
	a.cfg.Log.Info("machine", "machine", e.Machine, "state", e.State.String(), "cause", e.Cause)
	if e.State == UnitLeft {
		return // as with a unit: the looks find out what is not served any more
	}
	here := localAddrs()
	listen := slices.DeleteFunc(slices.Clone(e.Listen), func(ap netip.AddrPort) bool { return here[ap.Addr()] })
	now := time.Now()
	for _, id := range sortedIDs(a.clusters) {
		c := a.clusters[id]
		changed := false
		if e.Again && e.State == UnitStalled {
			changed = c.process(listen, true, e.Cause, now)
		} else {
			changed = c.machine(listen, e.State != UnitHere, e.Cause)
		}
		if changed {
			a.cast(c)
			lookNow(c)
		}
	}
}

// machine takes the silence of the machine on which some addresses are served, or its
// end. The dampers are not touched: nothing was found yet.
func (c *cluster) machine(listen []netip.AddrPort, silent bool, cause string) (changed bool) {
	for i := range c.addresses {
		a := &c.addresses[i]
		if slices.Contains(listen, a.addr) && a.end.ended != silent {
			a.end, changed = ending{silent, cause}, true
		}
	}
	return changed
}

// vantage takes what becomes of the site's other vantage. While it is silent its last word
// must not weigh against ours, and the vote on our own site says so.
func (a *Agent) vantage(e MachineEvent) {
	a.m.units.WithLabelValues("vantage "+e.Machine, e.State.String()).Inc()
	a.cfg.Log.Info("the site's other vantage", "vantage", e.Machine, "state", e.State.String(), "cause", e.Cause)
	switch {
	case e.State != UnitHere:
		a.ballot.without, a.home.missedAt = e.Machine, time.Now()
	case a.ballot.without == e.Machine:
		a.ballot.without, a.ballot.sure = "", false
	default:
		return
	}
	a.revote()
}

// confirm makes sure that a silent vantage is gone, as far as the store tells.
func (a *Agent) confirm(now time.Time) {
	b := &a.ballot
	if b.without == "" || now.Sub(a.home.missedAt) < sureAfter {
		return
	}
	if sure := a.cfg.Misses == nil || a.cfg.Misses(b.without) != b.vantage; sure != b.sure {
		b.sure = sure
		a.cfg.Log.Info("the site's other vantage is missed", "vantage", b.without, "sure", sure)
		a.revote()
	}
}

// revote says anew of our own site what was said, with what is known of the other vantage.
func (a *Agent) revote() {
	if own, voted := a.ballot.own[placement.SiteID(a.cfg.Site)]; voted {
		a.vote(own)
	}
}

// noteEnd notes what the kernel says of a unit, for the site's other vantage.
func (a *Agent) noteEnd(e UnitEvent, failed bool) {
	if delete(a.home.ended, e.Unit.Name); failed {
		a.home.ended[e.Unit.Name] = e.Unit.Listen
	}
	var all []netip.AddrPort
	for _, listen := range a.home.ended {
		all = append(all, listen...)
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	all = slices.Compact(all)
	a.ended.Store(&all)
}

// Ended returns the addresses on this machine whose process has ended, by the kernel's word.
// Any goroutine may call it.
func (a *Agent) Ended() []netip.AddrPort {
	if p := a.ended.Load(); p != nil {
		return *p
	}
	return nil
}
