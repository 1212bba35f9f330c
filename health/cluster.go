package health

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// cluster is what this vantage has found out of one cluster: a damper for each
// check of each address, folded to one state.
type cluster struct {
	object    placement.ClusterID
	rule      Rule
	fault     placement.Fault // what a failure of the rule proves
	addresses []address
	passive   passive
}

// address is one server: A and AAAA of a machine are two.
type address struct {
	addr  netip.AddrPort
	parts []part
	end   ending // of the process behind it
}

// part is what one check found at one address.
type part struct {
	check *placement.Check
	damp  damper
	cause string // of the last bad result
	last  Result
	looks int64
	bad   int // looks in a row that failed: two are a failure in the sense of availability
}

func newCluster(p Probe) *cluster {
	c := &cluster{object: p.Object, rule: p.Rule, fault: p.Fault}
	for i := range p.Targets {
		t := &p.Targets[i]
		if c.rule.Check == nil && c.rule.Of == nil {
			c.rule = Rule{Check: &t.Check}
		}
		if c.fault == placement.NoFault {
			c.fault = t.Check.Fault
		}
		a := c.find(t.Address)
		if a == nil {
			c.addresses = append(c.addresses, address{addr: t.Address})
			a = &c.addresses[len(c.addresses)-1]
		}
		if a.part(t.Check.Name) == nil {
			a.parts = append(a.parts, part{check: &t.Check, damp: newDamper(t.Check.Rise, t.Check.Fall, p.HalfLife)})
		}
	}
	return c
}

// inherit takes over what was found out before about the same addresses: a
// configuration which adds a server must not forget that the others are down. A
// check that asks for other counts starts anew.
func (c *cluster) inherit(before *cluster) {
	if before == nil {
		return
	}
	c.passive = before.passive
	for i := range c.addresses {
		a := &c.addresses[i]
		old := before.find(a.addr)
		if old == nil {
			continue
		}
		a.end = old.end
		for k := range a.parts {
			p := &a.parts[k]
			if o := old.part(p.check.Name); o != nil && o.damp.rise == p.damp.rise && o.damp.fall == p.damp.fall {
				check, half := p.check, p.damp.flaps.halfLife
				*p = *o
				p.check, p.damp.flaps.halfLife = check, half
			}
		}
	}
}

func (c *cluster) find(addr netip.AddrPort) *address {
	i := slices.IndexFunc(c.addresses, func(a address) bool { return a.addr == addr })
	if i < 0 {
		return nil
	}
	return &c.addresses[i]
}

func (a *address) part(check string) *part {
	i := slices.IndexFunc(a.parts, func(p part) bool { return p.check.Name == check })
	if i < 0 {
		return nil
	}
	return &a.parts[i]
}

// feed takes a look at one of the addresses; changed when a damper moved.
func (c *cluster) feed(addr netip.AddrPort, check string, r Result) (changed bool) {
	a := c.find(addr)
	if a == nil {
		return false
	}
	p := a.part(check)
	if p == nil {
		return false
	}
	second := c.second(r.At)
	ended := a.end.ended && r.OK() // it was not the end
	if ended {
		a.end = ending{}
	}
	return p.feed(r, c.passive.bad(r.At)) || c.second(r.At) != second || ended
}

func (p *part) feed(r Result, agreed bool) (changed bool) {
	p.last = r
	p.looks++
	switch {
	case r.State == placement.Down:
		p.bad++
	case r.OK():
		p.bad = 0
	}
	if r.State != placement.Up {
		p.cause = r.Cause
	}
	return p.damp.feed(r.State, agreed, r.At)
}

// failing tells whether the last two looks in a row failed, as the figures of
// availability count failures; known is false before the first look that saw.
func (a *address) failing(r *Rule) (failing, known bool) {
	f := r.judge(func(check string) finding {
		p := a.part(check)
		switch {
		case p == nil || p.damp.state == placement.Unknown && p.bad < 2:
			return finding{}
		case p.bad >= 2:
			return finding{state: placement.Down}
		}
		return finding{state: placement.Up}
	})
	return f.state == placement.Down, f.state != placement.Unknown
}

// state is what the rule makes of the address.
func (a *address) state(r *Rule) finding {
	if a.end.ended {
		return finding{placement.Down, a.end.cause}
	}
	return r.judge(func(check string) finding {
		p := a.part(check)
		if p == nil {
			return finding{}
		}
		f := finding{state: p.damp.state}
		if f.state != placement.Up && f.state != placement.Unknown {
			f.cause = p.cause
			if r.Check == nil {
				f.cause = check + ": " + f.cause
			}
		}
		return f
	})
}

// state folds the addresses: all up is up, some down is degraded, none up is
// down. An address that was never judged is not down: the cluster stays unknown
// until one answer or all failures are in.
func (c *cluster) state() (s placement.State, cause string) {
	var causes []string
	up, degraded, down := 0, 0, 0
	for i := range c.addresses {
		a := &c.addresses[i]
		f := a.state(&c.rule)
		switch f.state {
		case placement.Up:
			up++
		case placement.Degraded:
			degraded++
			causes = append(causes, a.addr.String()+": "+f.cause)
		case placement.Down:
			down++
			causes = append(causes, a.addr.String()+": "+f.cause)
		}
	}
	cause = strings.Join(causes, "; ")
	switch {
	case down > 0 && down == len(c.addresses):
		return placement.Down, cause
	case degraded > 0, down > 0 && up > 0:
		return placement.Degraded, cause
	case up > 0:
		return placement.Up, ""
	}
	return placement.Unknown, cause
}

// lost tells that nothing is known, though every check had as many looks as it takes
// to know.
func (c *cluster) lost() bool {
	for i := range c.addresses {
		for k := range c.addresses[i].parts {
			if p := &c.addresses[i].parts[k]; p.looks < int64(p.damp.fall) || p.damp.state != placement.Unknown {
				return false
			}
		}
	}
	return len(c.addresses) > 0
}

// passiveFor is how long evidence from real clients counts: nobody asks a server which
// nobody is sent to, so what was seen there must not stand for ever.
const passiveFor = 30 * time.Second

// passive is what real clients met: the second class of evidence. It never makes
// a verdict; it makes one failed look as good as several.
type passive struct {
	at    time.Time // of the last report
	run   int       // errors in a row
	cause string
}

// passiveRun is how many errors in a row are evidence.
const passiveRun = 5

// bad tells whether the evidence says down.
func (p *passive) bad(now time.Time) bool {
	return p.run >= passiveRun && now.Sub(p.at) < passiveFor
}

// report takes the outcome of requests: errors in a row at the end of them, or
// none when the last one went well.
func (p *passive) report(errors int, cause string, now time.Time) {
	if errors == 0 {
		*p = passive{at: now}
		return
	}
	p.run, p.cause, p.at = p.run+errors, cause, now
}
