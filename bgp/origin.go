package bgp

import (
	"time"

	"rhumb/bgp/guard"
	"rhumb/bgp/rpki"
	"rhumb/placement"
)

// ascent gathers what the guard weighs before a prefix is announced.
func (s *Speaker) ascent(r *route, now time.Time) guard.Ascent {
	a := guard.Ascent{Prefix: r.prefix.Prefix, Missing: r.missing, Announced: s.announced(), Max: s.cfg.MaxAnnounced,
		Before: s.cfg.Known.Has(s.originOf(r)), Overrides: s.loop.now.snapshot.Inventory.SetAside.Override}
	s.look(r, now)
	if r.origin.Invalid() {
		a.Invalid = r.origin.Text
	}
	return a
}

func (s *Speaker) originOf(r *route) rpki.Origin {
	return rpki.Origin{Prefix: r.prefix.Prefix, ASN: s.cfg.ASN}
}

// look asks what the RPKI makes of a route.
func (s *Speaker) look(r *route, now time.Time) {
	if s.cfg.RPKI != nil {
		r.origin = s.cfg.RPKI.Judge(r.prefix.Prefix, s.cfg.ASN, now)
	}
}

// remember notes that the route is on the world: from now on no ROA keeps it off.
func (s *Speaker) remember(r *route) {
	if r.mode == placement.Act {
		s.failed("announced routes", s.cfg.Known.Add(s.originOf(r)))
	}
}

// origins looks at every route's origin again. What turns invalid while it is announced
// is an alarm and no more: a wrong ROA must not become an outage by our own hand.
func (s *Speaker) origins(now time.Time) {
	if s.cfg.RPKI == nil {
		return
	}
	for _, r := range s.loop.routes {
		was := r.origin
		s.look(r, now)
		if r.origin.Invalid() && !was.Invalid() && r.told < placement.Withdrawn {
			s.log.Error("bgp: our origin is invalid by the RPKI; the route stays", "prefix", r.prefix.Prefix,
				"asn", s.cfg.ASN, "vrps", r.origin.Text)
			e := s.event(r, r.ladder.At, r.ladder.At)
			e.Cause = "the RPKI calls our origin invalid: " + r.origin.Text
			s.cfg.Events(e)
		}
	}
}

// observeOrigins sets the gauges of what the RPKI says.
func (m *metrics) observeOrigins(s *Speaker) {
	m.origin.Reset()
	if s.cfg.RPKI == nil {
		return
	}
	for _, r := range s.loop.routes {
		m.origin.WithLabelValues(r.prefix.Prefix.String(), r.origin.Word()).Set(1)
	}
	n, age := s.cfg.RPKI.Data(time.Now())
	m.vrps.Set(float64(n))
	m.vrpAge.Set(age.Seconds())
}
