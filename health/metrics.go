package health

import (
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/health/detect"
)

// metrics of the health role; without a Registerer they count for nobody.
type metrics struct {
	checks      *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	certificate *prometheus.GaugeVec
	available   *prometheus.CounterVec
	encounters  *prometheus.CounterVec
	transitions *prometheus.CounterVec
	reg         prometheus.Registerer // may be nil
	lateness    prometheus.Histogram
	hold        prometheus.Counter
	units       *prometheus.CounterVec
	unfit       prometheus.Gauge
	asked       *prometheus.CounterVec
}

// newMetrics registers what the role counts. Labels name sites, checks and results,
// never addresses: their number must not grow with clients or servers.
func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{reg: reg,
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_health_checks_total",
			Help: "Looks at targets, by result."}, []string{"site", "check", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rhumb_health_check_duration_seconds",
			Help: "How long a look took.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"check"}),
		certificate: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_health_certificate_seconds",
			Help: "Time left of the certificate that ends first, as last seen; negative when it has ended."}, []string{"site", "cluster", "check"}),
		available: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_availability_seconds_total",
			Help: "Time in which servers, sites and services were seen to work or to fail from this vantage."}, []string{"figure", "name", "state"}),
		encounters: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_health_encounters_total",
			Help: "Reports of what clients met."}, []string{"result"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_health_transitions_total",
			Help: "Changes of this vantage's votes, by the site voted on."}, []string{"site", "from", "to"}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_beat_lateness_seconds",
			Help: "How late a beat was sent.", Buckets: prometheus.ExponentialBuckets(0.00005, 3, 10)}),
		hold: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_health_hold_seconds_total",
			Help: "Time in which this vantage doubted itself."}),
		units: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_health_units_total",
			Help: "What became of the other units of this machine, by the kernel's word, and of the site's other machines."}, []string{"unit", "state"}),
		unfit: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_health_unfit",
			Help: "1 while this node fences itself: disk, descriptors, clock or link."}),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_health_asked_total",
			Help: "Looks that a person asked for: made, or answered by the last one since that was made a moment ago."}, []string{"result"}),
	}
	if reg != nil {
		reg.MustRegister(m.checks, m.duration, m.certificate, m.available, m.encounters, m.transitions, m.lateness, m.hold, m.units, m.unfit, m.asked)
	}
	return m
}

// watch registers what is counted by the link itself, where a packet allocates
// nothing.
func (m *metrics) watch(l *detect.Link) {
	if m.reg != nil {
		m.reg.MustRegister(beatCounts{l,

			desc("rhumb_beats_total", "Datagrams between sites.", "site", "direction", "result"),
			desc("rhumb_beat_bytes_total", "Octets sent to other sites, without headers of UDP and IP.", "site"),
			desc("rhumb_beat_suspicion", "Suspicion that a site will not be heard again: phi of a normal distribution.", "site"),
			desc("rhumb_beat_suspicions_total", "How often a site's nodes were suspected: before any verdict, and mostly without one.", "site")})
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// beatCounts collects from a link.
type beatCounts struct {
	link      *detect.Link
	beats     *prometheus.Desc
	octets    *prometheus.Desc
	suspicion *prometheus.Desc
	suspected *prometheus.Desc
}

// Describe names the metrics.
func (c beatCounts) Describe(to chan<- *prometheus.Desc) {
	to <- c.beats
	to <- c.octets
	to <- c.suspicion
	to <- c.suspected
}

// Collect reads them.
func (c beatCounts) Collect(to chan<- prometheus.Metric) {
	for _, n := range bySite(c.link.Counts()) {
		name := n.Name
		if name == "" {
			name = "unknown"
		} else {
			to <- prometheus.MustNewConstMetric(c.octets, prometheus.CounterValue, float64(n.Octets), name)
			to <- prometheus.MustNewConstMetric(c.suspicion, prometheus.GaugeValue, n.Suspicion, name)
			to <- prometheus.MustNewConstMetric(c.suspected, prometheus.CounterValue, float64(n.Suspected), name)
		}
		for r := range n.In {
			if n.In[r] > 0 || r == int(detect.OK) && n.Name != "" {
				to <- prometheus.MustNewConstMetric(c.beats, prometheus.CounterValue, float64(n.In[r]), name, "in", detect.Result(r).String())
			}
			if n.Out[r] > 0 {
				to <- prometheus.MustNewConstMetric(c.beats, prometheus.CounterValue, float64(n.Out[r]), name, "out", detect.Result(r).String())
			}
		}
	}
}

// bySite sums up what was counted of the nodes of one site; they come by name. A site is
// as suspect as the node that is heard best.
func bySite(all []detect.Counts) (out []detect.Counts) {
	for _, n := range all {
		if len(out) == 0 || out[len(out)-1].Name != n.Name {
			out = append(out, n)
			continue
		}
		sum := &out[len(out)-1]
		for r := range n.In {
			sum.In[r], sum.Out[r] = sum.In[r]+n.In[r], sum.Out[r]+n.Out[r]
		}
		sum.Octets, sum.Suspicion, sum.Suspected = sum.Octets+n.Octets, min(sum.Suspicion, n.Suspicion), sum.Suspected+n.Suspected
	}
	return out
}

// looked counts a look at a target.
func (m *metrics) looked(site string, l look) {
	m.checks.WithLabelValues(site, l.target.Check.Name, l.result.Kind).Inc()
	m.duration.WithLabelValues(l.target.Check.Name).Observe(l.result.Took.Seconds())
}
