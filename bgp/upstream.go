package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/bgp/guard"
	"rhumb/placement"
)

// Probe looks through one peer at the Internet behind it: a session says that
// the router is there, not that packets get through.
type Probe struct {
	// Targets answer from behind the upstream: any of them on any port, a refusal
	// is an answer too. One that answers is enough, so name several which share
	// no fate.
	Targets []netip.AddrPort
	// From is the source address; zero is the peer's Local. Routing by source
	// (ip rule from ...) must lead out through this peer, and the way back
	// leads through it where the address is the upstream's.
	From netip.Addr
	// Interface, if named, is bound to instead (SO_BINDTODEVICE).
	Interface string
	Every     time.Duration // 200 ms; also the limit of one look
	Fall      int           // looks in a row without any answer until the path is down (3)
	Rise      int           // with one until it is up (10)
	// Act says what is done at this peer alone when its path is down: Announce
	// only advises, Prepend and Withdrawn do it.
	Act placement.Step
}

// or fills in the defaults.
func (p Probe) or() Probe {
	p.Every = cmp.Or(p.Every, 200*time.Millisecond)
	p.Fall, p.Rise = cmp.Or(p.Fall, 3), cmp.Or(p.Rise, 10)
	return p
}

// Toward is an Engine which can be quieter at one peer than at the others.
type Toward interface {
	// Toward sets how loud we are at a peer at the most: Announce is as loud as
	// everywhere, Prepend adds copies of our AS, Withdrawn announces nothing there.
	Toward(ctx context.Context, peer netip.Addr, step placement.Step) error
}

// pathWindow is how many looks the loss is counted over: 10 s at the default pace.
const pathWindow = 50

// path is what the looks through one peer have shown. The zero value knows nothing
// and counts as up.
type path struct {
	down  bool
	run   int    // looks in a row which speak against down
	looks []bool // the last ones, newest last
	why   string // of the last failure
}

// note takes in one look and tells whether the judgement changed.
func (p *path) note(by Probe, ok bool, why string) bool {
	p.looks = append(p.looks, ok)
	if len(p.looks) > pathWindow {
		p.looks = p.looks[1:]
	}
	if !ok {
		p.why = why
	}
	if ok != p.down { // as expected
		p.run = 0
		return false
	}
	need := by.Fall
	if p.down {
		need = by.Rise
	}
	if p.run++; p.run < need {
		return false
	}
	p.down, p.run = !p.down, 0
	return true
}

// loss is the share of looks without an answer.
func (p *path) loss() float64 {
	if len(p.looks) == 0 {
		return 0
	}
	lost := 0
	for _, ok := range p.looks {
		if !ok {
			lost++
		}
	}
	return float64(lost) / float64(len(p.looks))
}

// upstream is a peer with a probe, as the loop sees it.
type upstream struct {
	peer  netip.Addr
	probe Probe
	path  path
	// at is how loud we are there at the most; advised is what it should be.
	at, advised placement.Step
	refused     bool // told once
}

// looked is the outcome of one look.
type looked struct {
	peer netip.Addr
	ok   bool
	why  string
}

// newUpstreams returns the peers which have a probe.
func newUpstreams(peers []Peer) (out []*upstream) {
	for i := range peers {
		if p := peers[i].Probe; p != nil {
			probe := p.or()
			probe.From = cmp.Or(probe.From, peers[i].Local)
			out = append(out, &upstream{peer: peers[i].Address, probe: probe})
		}
	}
	return out
}

// watchPaths looks through every upstream until the context ends, and hands the
// outcomes to the loop.
func (s *Speaker) watchPaths(ctx context.Context) {
	var wg sync.WaitGroup
	for _, u := range s.loop.upstreams {
		peer, probe := u.peer, u.probe
		wg.Go(func() {
			tick := time.NewTicker(probe.Every)
			defer tick.Stop()
			for {
				err := s.cfg.Look(ctx, probe)
				l := looked{peer: peer, ok: err == nil}
				if err != nil {
					l.why = err.Error()
				}
				select {
				case s.looks <- l:
				case <-ctx.Done():
					return
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// sawPath takes in a look.
func (s *Speaker) sawPath(l looked) {
	i := slices.IndexFunc(s.loop.upstreams, func(u *upstream) bool { return u.peer == l.peer })
	u := s.loop.upstreams[i]
	if !u.path.note(u.probe, l.ok, l.why) {
		return
	}
	u.advised, u.refused = placement.Announce, false
	if u.path.down {
		u.advised = max(u.probe.Act, placement.Prepend)
		s.log.Warn("bgp: path behind a peer is down", "peer", u.peer, "err", u.path.why, "advised", u.advised, "act", u.acts(s))
		return
	}
	s.log.Info("bgp: path behind a peer is up again", "peer", u.peer)
}

// acts tells whether the advice is followed by ourselves.
func (u *upstream) acts(s *Speaker) bool {
	return u.probe.Act > placement.Announce && s.cfg.Mode != placement.Observe
}

// steer makes each peer hear what its path is good for, as far as the guard permits.
func (s *Speaker) steer(ctx context.Context) {
	engine, able := s.engine.(Toward)
	for _, u := range s.loop.upstreams {
		if !able || !u.acts(s) {
			continue
		}
		others := s.hearing(u.peer)
		to, no := guard.LowerToward(guard.Toward{Peer: u.peer, At: u.at, Want: u.advised, Others: others})
		switch {
		case no != nil && !u.refused:
			u.refused = true
			s.metrics.refusals.WithLabelValues(string(no.Rule)).Inc()
			s.log.Warn("bgp: "+no.Error(), "peer", u.peer, "rule", no.Rule)
		case others == 0: // whoever was good meanwhile is gone: a bad path is better than none
			to = placement.Announce
		}
		if to != u.at {
			s.setToward(ctx, engine, u, to)
		}
	}
}

// setToward makes the engine as loud at a peer as was permitted.
func (s *Speaker) setToward(ctx context.Context, engine Toward, u *upstream, to placement.Step) {
	object := "toward " + u.peer.String()
	if err := engine.Toward(ctx, u.peer, to); err != nil {
		s.fail(object, err)
		return
	}
	s.recovered(object)
	s.log.Info("bgp: toward a peer", "peer", u.peer, "from", u.at, "to", to)
	u.at, u.refused = to, false
	s.metrics.toward.WithLabelValues(u.peer.String(), to.String()).Inc()
}

// hearing counts the peers other than one which hear us in full and lose nothing
// that we know of.
func (s *Speaker) hearing(except netip.Addr) (n int) {
	for _, p := range s.loop.peers {
		bad := slices.ContainsFunc(s.loop.upstreams, func(u *upstream) bool {
			return u.peer == p.Address && (u.at > placement.Announce || u.path.down)
		})
		if p.Established && p.Address != except && !bad {
			n++
		}
	}
	return n
}

// advice says in words what is wrong behind a peer; empty when nothing is.
func (s *Speaker) advice(peer netip.Addr) string {
	for _, u := range s.loop.upstreams {
		switch {
		case u.peer != peer || !u.path.down:
		case u.at > placement.Announce:
			return fmt.Sprintf("path down (%s): %s there", u.path.why, u.at)
		default:
			return fmt.Sprintf("path down (%s): %s advised", u.path.why, u.advised)
		}
	}
	return ""
}

// Look asks the targets of a probe at once; the first answer of any is enough.
func Look(ctx context.Context, p Probe) error {
	ctx, cancel := context.WithTimeout(ctx, p.Every)
	defer cancel()
	answers := make(chan error, len(p.Targets))
	for _, target := range p.Targets {
		go func() { answers <- knock(ctx, p, target) }()
	}
	var errs []string
	for range p.Targets {
		err := <-answers
		if err == nil {
			return nil
		}
		errs = append(errs, err.Error())
	}
	slices.Sort(errs)
	return errors.New(strings.Join(errs, "; "))
}

// knock opens a TCP connection and ends it by RST, so that nothing stays in
// TIME_WAIT at this pace. A refusal came all the way there and back.
func knock(ctx context.Context, p Probe, target netip.AddrPort) error {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return bindTo(c, p.Interface) }}
	if p.From.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.From, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", target.String())
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("no answer from %s", target)
	case err != nil:
		return err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else an ordinary close, which does no harm
	}
	return conn.Close()
}

// bindTo binds a socket to an interface, if one is named.
func bindTo(c syscall.RawConn, name string) error {
	if name == "" {
		return nil
	}
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), name) }); e != nil {
		return e
	}
	return err
}
