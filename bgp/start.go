package bgp

import (
	"context"
	"slices"
	"time"

	"rhumb/bgp/guard"
	"rhumb/placement"
)

// startEngine starts what the configuration asks for, and returns how it ends.
func (s *Speaker) startEngine(ctx context.Context) (end func(), err error) {
	if s.cfg.Kernel != nil {
		return s.startBeside(ctx, *s.cfg.Kernel)
	}
	own, err := s.startSpeaker(ctx, s.cfg.Port, s.cfg.Peers)
	if err != nil {
		return nil, err
	}
	s.engine = own
	return func() { s.closeEngine(own) }, nil
}

// startSpeaker starts the process's GoBGP.
func (s *Speaker) startSpeaker(ctx context.Context, port int, peers []Peer) (*GoBGP, error) {
	return StartGoBGP(ctx, GoBGPConfig{ASN: s.cfg.ASN, RouterID: s.cfg.RouterID,
		Port: port, Listen: s.cfg.Listen, Peers: peers, Logger: s.log})
}

// startBeside starts the kernel's routes. Where peers are named, a GoBGP without
// a port dials them and is given no route: it reads markers.
func (s *Speaker) startBeside(ctx context.Context, c KernelConfig) (func(), error) {
	hangUp := func() {}
	if len(s.cfg.Peers) > 0 {
		peers := slices.Clone(s.cfg.Peers)
		for i := range peers {
			peers[i].AllPaths, peers[i].OwnFamily = true, false
		}
		reader, err := s.startSpeaker(ctx, NoListener, peers)
		if err != nil {
			return nil, err
		}
		c.Reader, hangUp = reader, func() { s.closeEngine(reader) }
	}
	k, err := StartKernel(c)
	if err != nil {
		hangUp()
		return nil, err
	}
	s.engine = k
	return func() { s.failed("pulse", k.Close()); hangUp() }, nil
}

// closeEngine ends the sessions; the routes are withdrawn by then.
func (s *Speaker) closeEngine(own *GoBGP) {
	if err := own.Close(context.Background()); err != nil {
		s.log.Warn("bgp: close", "err", err)
	}
}

// inherit begins the ladders where an engine's routes stand: a predecessor's
// announcements go on, and come down, if they must, by the same rules.
func (s *Speaker) inherit(ctx context.Context, now time.Time) error {
	if !outlives(s.engine) {
		return nil
	}
	st, err := s.engine.PeerState(ctx)
	if err != nil {
		return err
	}
	for _, have := range st.Routes {
		r := s.route(have.Prefix, now)
		r.told, r.mode = have.Step, placement.Act
		r.ladder = guard.Ladder{At: have.Step, Since: now, Settled: now}
		s.log.Info("bgp: goes on with a route which stands", "prefix", have.Prefix, "step", have.Step)
	}
	return nil
}
