package bgp

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/bgp/guard"
	"rhumb/placement"
)

// Event is one transition of one prefix at this node, and why.
type Event struct {
	At       time.Time
	Prefix   netip.Prefix
	Node     string
	From, To placement.Step
	Cause    string
	Fault    placement.Fault
	// Rule is set when a rule kept the prefix from moving; From and To are equal then.
	Rule     placement.RuleName
	Slot     int  // held, 0 for none
	Witness  bool // another site's route was seen
	Peers    int  // established
	Snapshot string
	Took     time.Duration // at the engine
	// Observed is set where nothing was really changed.
	Observed bool
}

// report tells of a transition: one log line, one event, one count.
func (s *Speaker) report(r *route, from, to placement.Step, took time.Duration) {
	e := s.event(r, from, to)
	e.Took = took
	action := to.String()
	msg := "bgp: step"
	if e.Observed {
		msg = "bgp: would step"
		s.metrics.would.WithLabelValues(r.prefix.Prefix.String(), action).Inc()
	} else {
		s.metrics.changes.WithLabelValues(r.prefix.Prefix.String(), action, string(e.Fault)).Inc()
		if in := s.loop.now; in != nil && from < to {
			s.metrics.reaction.Observe(time.Since(in.at).Seconds())
		}
	}
	s.write(slog.LevelInfo, msg, &e)
	s.cfg.Events(e)
}

// event describes a transition as the loop sees the world now.
func (s *Speaker) event(r *route, from, to placement.Step) Event {
	e := Event{At: time.Now(), Prefix: r.prefix.Prefix, Node: s.cfg.Node, From: from, To: to, Cause: r.want.Cause, Fault: r.want.Fault,
		Witness: guard.Seen(s.loop.markers.sightings(), r.prefix.Prefix, uint32(s.cfg.SiteNumber)),
		Peers:   s.established(), Observed: r.mode != placement.Act}
	if r.missing != "" {
		e.Cause, e.Fault = r.missing, placement.LocalFault
	}
	if r.claim.slot != nil {
		e.Slot = r.claim.slot.Number
	}
	if in := s.loop.now; in != nil {
		e.Snapshot = in.snapshot.Name.String()
	}
	return e
}

// write is the one log line of a transition; its keys are fixed.
func (s *Speaker) write(level slog.Level, msg string, e *Event) {
	s.log.LogAttrs(context.Background(), level, msg,
		slog.String("prefix", e.Prefix.String()), slog.String("node", e.Node),
		slog.String("from", e.From.String()), slog.String("to", e.To.String()),
		slog.String("cause", e.Cause), slog.String("fault", string(e.Fault)),
		slog.String("rule", string(e.Rule)), slog.Int("slot", e.Slot), slog.Bool("witness", e.Witness),
		slog.Int("peers", e.Peers), slog.String("snapshot", e.Snapshot),
		slog.Float64("took_ms", float64(e.Took.Microseconds())/1000))
}

// refuse notes why a route stays where it is, and tells it once until the rule changes.
func (s *Speaker) refuse(r *route, no *placement.Refusal) {
	if no == nil {
		r.refusal = nil
		return
	}
	again := r.refusal != nil && r.refusal.Rule == no.Rule
	r.refusal = no
	if again {
		return
	}
	s.metrics.refusals.WithLabelValues(string(no.Rule)).Inc()
	e := s.event(r, r.ladder.At, r.ladder.At)
	if e.Rule = no.Rule; no.Hint != "" {
		e.Cause += "; " + no.Hint
	}
	s.write(slog.LevelWarn, "bgp: "+no.Error(), &e)
	s.cfg.Events(e)
}

// complain logs and counts a refusal which belongs to no route, once.
func (s *Speaker) complain(object string, no *placement.Refusal) {
	if s.loop.errs[object] != no.Error() {
		s.loop.errs[object] = no.Error()
		s.metrics.refusals.WithLabelValues(string(no.Rule)).Inc()
		s.log.Warn("bgp: "+no.Error(), "rule", no.Rule, "snapshot", no.Object)
	}
}

// fail logs an error once for as long as it lasts.
func (s *Speaker) fail(object string, err error) {
	if s.loop.errs[object] != err.Error() {
		s.loop.errs[object] = err.Error()
		s.log.Error("bgp: failed", "object", object, "err", err)
	}
}

// recovered lets the next error of an object be told again.
func (s *Speaker) recovered(object string) { delete(s.loop.errs, object) }

// failed notes an outcome, good or bad.
func (s *Speaker) failed(object string, err error) {
	if err != nil {
		s.fail(object, err)
		return
	}
	s.recovered(object)
}

// metrics are the Speaker's; they work unregistered too.
type metrics struct {
	announced, step, slots, anchors, peer *prometheus.GaugeVec
	loss, path                            *prometheus.GaugeVec
	changes, would, refusals, repairs     *prometheus.CounterVec
	toward                                *prometheus.CounterVec
	origin                                *prometheus.GaugeVec
	vrps, vrpAge                          prometheus.Gauge
	reaction                              prometheus.Histogram
}

// newMetrics makes the metrics and registers them where there is a registry.
func newMetrics(reg prometheus.Registerer, site string) *metrics {
	own := prometheus.Labels{"site": site}
	gauge := func(name, help string, l prometheus.Labels, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: l}, labels)
	}
	count := func(name, help string, l prometheus.Labels, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: l}, labels)
	}
	m := &metrics{
		announced: gauge("rhumb_anycast_prefix_announced", "1 while the prefix is announced by this node.", own, "prefix"),
		step:      gauge("rhumb_anycast_step", "Rung of the ladder: 0 announce, 1 prepend, 2 gshut, 3 withdrawn.", own, "prefix"),
		slots:     gauge("rhumb_bgp_budget_slots", "Slots of the prefix: all there are, and held by this site.", nil, "prefix", "state"),
		anchors:   gauge("rhumb_bgp_anchor_sites", "Sites named to stay, by the snapshot in force.", nil, "prefix"),
		peer:      gauge("rhumb_bgp_peer_state", "1 for the state in which the peer is.", nil, "peer", "state"),
		loss:      gauge("rhumb_bgp_path_loss_ratio", "Looks through the peer without an answer, of the last 50.", own, "peer"),
		path:      gauge("rhumb_bgp_path_step", "What the peer should hear of us: 0 announce, 1 prepend, 3 nothing.", own, "peer"),
		toward:    count("rhumb_bgp_path_changes_total", "Changes made at one peer alone, by the step reached.", own, "peer", "action"),
		changes:   count("rhumb_anycast_changes_total", "Steps taken, by the step reached.", own, "prefix", "action", "fault"),
		would:     count("rhumb_anycast_would_change_total", "Steps which mode observe did not take.", own, "prefix", "action"),
		refusals:  count("rhumb_bgp_guard_refusals_total", "Steps refused, by rule.", nil, "rule"),
		repairs:   count("rhumb_bgp_repairs_total", "Routes of the engine found different from what it was told.", nil, "kind"),
		reaction: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_anycast_reaction_seconds",
			Help: "From the snapshot handed over to the UPDATE given to the engine, lowerings only.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}),
	}
	m.origin = gauge("rhumb_bgp_origin", "1 for what the RPKI says of the prefix with our AS: valid, invalid, not-found, stale.", own, "prefix", "state")
	m.vrps = prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_bgp_vrps", Help: "VRPs by which our origins are judged."})
	m.vrpAge = prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_bgp_vrp_age_seconds", Help: "Age of the VRP data; 0 while there are none."})
	if reg != nil {
		reg.MustRegister(m.announced, m.step, m.slots, m.anchors, m.peer, m.loss, m.path, m.toward, m.changes, m.would, m.refusals, m.repairs, m.reaction, m.origin, m.vrps, m.vrpAge)
	}
	return m
}

// observe sets the gauges from the loop's state.
func (m *metrics) observe(s *Speaker) {
	for _, r := range s.loop.routes {
		p, up, held := r.prefix.Prefix.String(), 0.0, 0.0
		if r.told < placement.Withdrawn {
			up = 1
		}
		if r.claim.slot != nil {
			held = 1
		}
		if r.told == placement.Withdrawn && s.retired(r) {
			m.announced.DeleteLabelValues(p) // nobody shall miss it
		} else {
			m.announced.WithLabelValues(p).Set(up)
		}
		m.step.WithLabelValues(p).Set(float64(r.ladder.At))
		m.slots.WithLabelValues(p, "all").Set(float64(r.prefix.Slots))
		m.slots.WithLabelValues(p, "held").Set(held)
		m.anchors.WithLabelValues(p).Set(float64(len(s.loop.now.anchors(r))))
	}
	for _, u := range s.loop.upstreams {
		m.loss.WithLabelValues(u.peer.String()).Set(u.path.loss())
		m.path.WithLabelValues(u.peer.String()).Set(float64(u.advised))
	}
	m.observeOrigins(s)
	m.peer.Reset()
	for _, p := range s.loop.peers {
		m.peer.WithLabelValues(p.Address.String(), p.State).Set(1)
	}
}
