package api

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics counts requests, stream clients and changes.
type metrics struct {
	requests *prometheus.CounterVec
	clients  prometheus.Gauge
	dropped  prometheus.Counter
	actions  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_http_requests_total", Help: "Requests to the API by route, method and code."}, []string{"route", "method", "code"}),
		clients:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_stream_clients", Help: "Clients of the event stream."}),
		dropped:  prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_stream_dropped_total", Help: "Stream clients dropped because they read too slowly."}),
		actions:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_audit_actions_total", Help: "Changes asked for by operators, by verb and result."}, []string{"verb", "result"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.clients, m.dropped, m.actions} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader remembers the code.
func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController flush through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// count labels by the route's pattern, never by the path: the number of series
// stays that of the routes, whoever asks for what.
func (m *metrics) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(rec, r)
		_, route, _ := strings.Cut(r.Pattern, " ")
		if route == "" {
			route = "other"
		}
		m.requests.WithLabelValues(route, knownMethod(r.Method), strconv.Itoa(rec.code)).Inc()
	})
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut:
		return m
	}
	return "other"
}

// scrape serves what all parts of this process count.
func (s *Server) scrape() http.Handler {
	if s.cfg.Gatherer == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}
