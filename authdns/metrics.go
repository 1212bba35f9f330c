package authdns

import (
	"maps"
	"slices"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// metrics are the series of this part. Labels hold zones, sites and enumerated
// words, never anything a client may choose freely.
type metrics struct {
	requests, responses *prometheus.CounterVec
	duration, size      *spread
	decisions, ecs      *prometheus.CounterVec
	would, dropped      *prometheus.CounterVec
	truncated, panics   prometheus.Counter
	retries             prometheus.Counter
	guards
	zones zoneMetrics

	all []prometheus.Collector
	// fresh brings the counts of the fast path up to date.
	fresh func()
}

// Describe is of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

// Collect is of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.fresh()
	for _, c := range m.all {
		c.Collect(ch)
	}
}

// guards are the series of what keeps others from being flooded through us.
type guards struct {
	cookies *prometheus.CounterVec
	limited [limitDrop + 1]prometheus.Counter // by verdict
	// quarantined counts what was refused for the harm that its like has done.
	quarantined prometheus.Counter
	// overload counts queries by class and fate while there is one; strained tells so.
	overload *prometheus.CounterVec
	strained prometheus.Gauge
}

func newGuards(counter func(name, help string, labels ...string) *prometheus.CounterVec) guards {
	limited := counter("rhumb_dns_limited_total", "Replies beyond the rate limit, by what became of them.", "action")
	return guards{
		overload:    counter("rhumb_dns_overload_queries_total", "Queries during an overload, by who asked and what became of them.", "class", "action"),
		strained:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_dns_overload", Help: "1 while queries are turned away, or would be, as more is asked for than can be answered."}),
		quarantined: counter("rhumb_dns_quarantined_total", "Queries refused because their like panicked or ended the process.").WithLabelValues(),
		cookies:     counter("rhumb_dns_cookies_total", "Queries by what their cookie was worth.", "cookie"),
		limited:     [...]prometheus.Counter{limitSlip: limited.WithLabelValues("slip"), limitDrop: limited.WithLabelValues("drop")},
	}
}

// zoneMetrics tell about each zone as it is served.
type zoneMetrics struct {
	serial, records, loaded *prometheus.GaugeVec
	// ends is when the owner's signatures do; signs tells the same of our own.
	ends     *prometheus.GaugeVec
	failures *prometheus.CounterVec
}

// newMetrics makes the series and registers them; a nil Registerer keeps them
// to ourselves.
func newMetrics(reg prometheus.Registerer, fresh func(), all ...prometheus.Collector) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		all = append(all, v)
		return v
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"zone"})
		all = append(all, v)
		return v
	}
	m := &metrics{
		requests:  counter("rhumb_dns_requests_total", "Queries received.", "zone", "proto", "family", "type"),
		responses: counter("rhumb_dns_responses_total", "Replies sent.", "zone", "rcode"),
		duration:  newSpread("rhumb_dns_request_duration_seconds", "Time to make a reply.", 1e-9, prometheus.ExponentialBuckets(1e-6, 4, 9)),
		size:      newSpread("rhumb_dns_response_size_bytes", "Size of replies.", 1, []float64{64, 128, 256, 512, 1232, 4096, 65535}),
		decisions: counter("rhumb_dns_decisions_total", "Steered answers by the site they name, and why.", "zone", "policy", "site", "reason"),
		ecs:       counter("rhumb_dns_ecs_total", "What became of the client subnet option.", "use"),
		would:     counter("rhumb_observe_would_total", "What would have been done in mode act.", "role", "action"),
		dropped:   counter("rhumb_dns_dropped_total", "Packets and connections without a reply.", "reason"),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_dns_truncated_total", Help: "Replies with TC set."}),
		panics:    prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_dns_panics_total", Help: "Queries that panicked; each cost one answer."}),
		retries:   prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_dns_quic_retries_total", Help: "Clients over QUIC that had to prove their address first, as many handshakes were under way."}),
		guards:    newGuards(counter),
		zones: zoneMetrics{
			serial:   gauge("rhumb_zone_serial", "Serial of the zone as served."),
			records:  gauge("rhumb_zone_records", "Records of the zone as served."),
			loaded:   gauge("rhumb_zone_last_load_timestamp_seconds", "When the version in force was loaded."),
			ends:     gauge("rhumb_zone_signature_expiry_timestamp_seconds", "When the first RRset of a zone signed by its owner is left without a valid signature."),
			failures: counter("rhumb_zone_load_failures_total", "Versions refused; the previous one stayed.", "zone"),
		},
	}
	m.all, m.fresh = append(all, m.duration, m.size, m.truncated, m.panics, m.retries, m.strained), fresh
	if reg == nil {
		return m, nil
	}
	return m, reg.Register(m)
}

// add takes in queries which the fast path has counted.
func (m *metrics) add(zone, qtype, family string, rcode int, ecs ecsUse, n uint64) {
	m.requests.WithLabelValues(zone, "udp", family, qtype).Add(float64(n))
	m.responses.WithLabelValues(zone, rcodeLabel(rcode)).Add(float64(n))
	m.ecs.WithLabelValues(string(ecs)).Add(float64(n))
}

// count takes in one query.
func (m *metrics) count(o *outcome, from asker, n int, took time.Duration) {
	if o.silent {
		m.dropped.WithLabelValues(dropSilent).Inc()
		return
	}
	p := proto(from)
	m.requests.WithLabelValues(o.zone, protoLabels[p], familyLabel(from), typeLabel(o.qtype)).Inc()
	m.responses.WithLabelValues(o.zone, rcodeLabel(o.rcode)).Inc()
	m.duration.observe(p, took.Seconds())
	m.size.observe(p, float64(n))
	m.ecs.WithLabelValues(string(o.ecs)).Inc()
	m.cookies.WithLabelValues(cookieUses[o.cookie]).Inc()
	if o.truncated {
		m.truncated.Inc()
	}
	d := o.decision
	switch {
	case d == nil:
	case d.observed:
		m.would.WithLabelValues("authdns", "answer").Inc()
		m.decisions.WithLabelValues(o.zone, d.policy, "", reasonStatic).Inc()
	default:
		m.decisions.WithLabelValues(o.zone, d.policy, d.site, d.reason).Inc()
	}
}

// rcodeLabel names an RCODE; 16 means two things, and TSIG is not spoken here.
func rcodeLabel(rcode int) string {
	if rcode == dns.RcodeBadVers {
		return "BADVERS"
	}
	return dns.RcodeToString[rcode]
}

// typeLabel keeps the number of series small: anybody may ask for any type.
func typeLabel(t uint16) string {
	switch t {
	case dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeCNAME,
		dns.TypeSRV, dns.TypePTR, dns.TypeCAA, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeDS, dns.TypeDNSKEY, dns.TypeANY:
		return dns.TypeToString[t]
	}
	return "other"
}

// zoneFailed counts a version that was refused.
func (m *metrics) zoneFailed(name string) { m.zones.failures.WithLabelValues(name).Inc() }

// setZones renews the gauges; zones that are gone leave no series behind.
func (m *metrics) setZones(zones map[string]*loaded) {
	z := &m.zones
	for _, g := range []*prometheus.GaugeVec{z.serial, z.records, z.loaded, z.ends} {
		g.Reset()
	}
	for name, l := range zones {
		if l.zone == nil {
			continue
		}
		z.serial.WithLabelValues(name).Set(float64(l.zone.Serial()))
		z.records.WithLabelValues(name).Set(float64(l.zone.Records))
		z.loaded.WithLabelValues(name).Set(float64(l.at.Unix()))
		if l.sign == nil && presigned(l.zone) {
			z.ends.WithLabelValues(name).Set(float64(l.zone.Signed.Expires.Unix()))
		}
	}
}

// Status returns what this role reports of itself.
func (s *Server) Status() placement.DNSStatus {
	now := s.now()
	qps, answers := s.tallies.status(now)
	out := placement.DNSStatus{QPS: qps, Answers: answers, Crashed: s.shield.crashed}
	if at := s.shield.quarantine.last.Load(); at > 0 {
		out.Confined = time.Unix(0, at).UTC()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	faults := s.current.Load().faults
	for _, name := range sortedKeys(s.zones) {
		l := s.zones[name]
		z := placement.ZoneStatus{Name: name, Level: l.meta.Level, Error: l.fault, Warning: l.ending(now)}
		if z.Error == "" {
			z.Error = faults[name]
		}
		if l.zone != nil {
			z.Serial, z.Names = l.zone.Serial(), l.zone.Owners
		}
		out.Zones = append(out.Zones, z)
	}
	return out
}

// sortedKeys gives maps an order before it reaches an output.
func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
