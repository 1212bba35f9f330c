package edge

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/feed"
)

// metrics counts what this part does. No label holds a client's address.
type metrics struct {
	sessions  prometheus.Gauge
	transfers *prometheus.CounterVec // from, to, result
	duration  prometheus.Histogram
	bytes     prometheus.Counter
	records   *prometheus.GaugeVec // site, role
	stall     prometheus.Histogram
	steps     *prometheus.HistogramVec // step
	refused   prometheus.Counter
	mismatch  prometheus.Counter
	revivals  *prometheus.CounterVec // result
	answers   *prometheus.CounterVec // result
	questions *prometheus.CounterVec // result
	tls       *tlsMetrics
	feeds     *feed.Metrics
	prepare   *prepareMetrics
	guests    *guestMetrics
	uploads   *uploadMetrics
	reserve   *reserveMetrics
}

// Results of a transfer, as counted by its giver.
const (
	resultOK      = "ok"
	resultRefused = "refused" // by the other side, before or after commit
	resultTimeout = "timeout" // no answer before commit: goes on here
	resultFailed  = "failed"  // could not be dumped: goes on here
	resultLost    = "lost"    // no answer after commit: the session is gone
	resultObserve = "observe" // would have moved
)

func newMetrics(site string, reg prometheus.Registerer) (*metrics, error) {
	self := prometheus.Labels{"site": site}
	m := &metrics{
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_sessions_active",
			Help: "Client sessions whose socket is at this site.", ConstLabels: self}),
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_session_transfers_total",
			Help: "Hand-offs begun at this site, by how they ended."}, []string{"from", "to", "result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_session_transfer_duration_seconds",
			Help: "Claim to confirmation of hand-offs begun at this site.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_session_transfer_bytes_total",
			Help: "Bytes of offers sent to other sites."}),
		records: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_records",
			Help: "Session records by the site they concern: role owner, ours there; role backup, theirs here; deposit and recall, the same for a next process alone."}, []string{"site", "role"}),
		stall: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_edge_stall_seconds",
			Help: "Silence of a session that came, at its new owner: receipt of the offer, or the verdict against its site, to activation.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rhumb_edge_revival_step_seconds",
			Help: "Of sessions revived here, what each step took: ask, from the verdict to the first probe; answer, to the client's word; restore, to its socket.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}, []string{"step"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_edge_refused_epoch_total",
			Help: "Offers, commits and records refused because a newer epoch or generation is known."}),
		mismatch: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_edge_mismatch_total",
			Help: "Blocks that no longer had their object's hash; none of their bytes was sent."}),
		revivals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_revivals_total",
			Help: "Attempts to go on with a session whose site or process died, by how they ended."}, []string{"result"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_probe_answers_total",
			Help: "Segments of clients whose session is being revived, by what they told."}, []string{"result"}),
		questions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_questions_total",
			Help: "Questions to clients of moved sessions where they stand, by whether one spoke within the time that takes."}, []string{"result"}),
	}
	m.tls, m.feeds, m.prepare, m.guests, m.uploads = newTLSMetrics(self), feed.NewMetrics(self), newPrepareMetrics(), newGuestMetrics(), newUploadMetrics()
	m.reserve = newReserveMetrics()
	if reg == nil {
		return m, nil
	}
	for _, c := range append(slices.Concat(m.tls.collectors(), m.feeds.Collectors(), m.prepare.collectors(), m.guests.collectors(), m.uploads.collectors(), m.reserve.collectors()), m.sessions, m.transfers, m.duration, m.bytes, m.records, m.stall, m.steps, m.refused, m.mismatch, m.revivals, m.answers, m.questions) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
