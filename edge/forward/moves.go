package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Hold keeps the packets of a flow, until Release or 15 s have passed: its
// session is being restored here, or is about to leave. When it returns, none
// that was judged before is still on its way to the kernel: a socket that is
// silenced next has had it.
func (f *Forwarder) Hold(flow Flow) {
	f.passing.Lock()
	defer f.passing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owners.hold(f.now(), flow)
}

// Claim is Hold for a session that is revived here: its owner is lost. The other
// sites are told soon that its packets belong here, and OnHeld sees each of them.
func (f *Forwarder) Claim(flow Flow) {
	f.mu.Lock()
	f.owners.claim(f.now(), flow)
	f.claimed = append(f.claimed, flow)
	f.mu.Unlock()
	select {
	case f.claiming <- struct{}{}:
	default:
	}
}

// heraldAfter is for how long claims are gathered before the other sites are told: a lost
// site's sessions are claimed all at once, and what their clients wait for goes first.
const heraldAfter = 15 * time.Millisecond

// herald tells the other sites of claims until the context ends.
func (f *Forwarder) herald(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.claiming:
		}
		timer := time.NewTimer(heraldAfter)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		f.mu.Lock()
		flows := f.claimed
		f.claimed = nil
		f.mu.Unlock()
		for _, flow := range flows {
			f.tellClaim(flow)
		}
	}
}

// tellClaim tells of one, unless its session turned out to be another site's.
func (f *Forwarder) tellClaim(flow Flow) {
	f.mu.Lock()
	ours := f.owners.mayBeHere(flow)
	f.mu.Unlock()
	if !ours {
		return
	}
	body := appendSession(nil, session{proto: protoTCP, flow: flow})
	set := f.peers.Load()
	for _, site := range set.sites {
		p := set.bySite[site]
		if err := f.send(p, kindMine, body); err != nil && !errors.Is(err, net.ErrClosed) {
			f.complain(fmt.Errorf("forward: tell %s of a claim: %w", p.Site, err))
		}
	}
}

// Lost is told that a site is down: what was believed of the flows there is
// forgotten, so that whoever revives them is found.
func (f *Forwarder) Lost(site string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlearn(site)
	f.owners.lost(site)
	f.owners.mourn(f.now().Add(reviveLife))
	f.udp.lost(site)
}

// Release gives the packets of a held flow to the kernel, in the order they
// came: to the session restored meanwhile, or to a reset.
func (f *Forwarder) Release(flow Flow) {
	f.mu.Lock()
	steps := f.owners.release(flow, nil)
	f.mu.Unlock()
	f.run(f.now(), f.owners, steps)
}

// Moved records that this site gave a session to another: packets that still
// arrive follow it, and those who ask are sent there. Call it before the
// session's socket closes.
func (f *Forwarder) Moved(flow Flow, to string) {
	now := f.now()
	f.mu.Lock()
	steps := f.owners.move(now, flow, to, nil)
	f.mu.Unlock()
	f.run(now, f.owners, steps)
}

// Stayed records that a session which was held here did not come: its packets are those of
// a site, until that says that it has no such session.
func (f *Forwarder) Stayed(flow Flow, at string) {
	now := f.now()
	f.mu.Lock()
	steps := f.owners.stay(now, flow, at, nil)
	f.mu.Unlock()
	f.run(now, f.owners, steps)
}
