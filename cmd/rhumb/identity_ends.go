package main

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/internal/config"
	"rhumb/placement"
)

// Alarms of this site's own certificates. What one that has run out takes away is this
// site's word with the others, and that at the next connection: time to be told before.
const (
	alarmIdentityEnds     = "IdentityEnds"
	alarmIdentityRejected = "IdentityRejected"

	identityEndsSoon = 30 * 24 * time.Hour
)

// addIdentityEnds has this unit tell when its certificates end, and whether new files
// of them are no good. member: it shows that of a member of the store, too.
func addIdentityEnds(u *unit, member bool) {
	if u.identity == nil {
		return
	}
	own := func() []config.OwnCertificate { return u.identity.Certificates(member) }
	u.metrics.MustRegister(newIdentityMetrics(own))
	u.reports = append(u.reports, func(n *placement.Node) {
		n.Alarms = append(n.Alarms, identityAlarms(n.Name, own(), time.Now())...)
	})
}

// identityAlarms are what an operator should know of a node's certificates.
func identityAlarms(node string, own []config.OwnCertificate, now time.Time) []placement.Alarm {
	var out []placement.Alarm
	for _, c := range own {
		object, day := node+" "+c.File, c.Ends.UTC().Format(time.DateOnly)
		switch left := c.Ends.Sub(now); {
		case left <= 0:
			out = append(out, placement.Alarm{Kind: alarmIdentityEnds, Object: object,
				Text: fmt.Sprintf("%s of %s ended on %s: other sites and the store refuse its new connections", c.File, node, day)})
		case left < identityEndsSoon:
			out = append(out, placement.Alarm{Kind: alarmIdentityEnds, Object: object, Text: fmt.Sprintf("%s of %s ends on %s", c.File, node, day)})
		}
		if c.Refused != nil {
			out = append(out, placement.Alarm{Kind: alarmIdentityRejected, Object: object,
				Text: fmt.Sprintf("the one that ends on %s is shown on: %v", day, c.Refused)})
		}
	}
	return out
}

// identityMetrics shows this site's certificates as they are when it is asked.
type identityMetrics struct {
	own            func() []config.OwnCertificate
	ends, rejected *prometheus.Desc
}

func newIdentityMetrics(own func() []config.OwnCertificate) *identityMetrics {
	return &identityMetrics{own: own,
		ends: prometheus.NewDesc("rhumb_identity_expiry_timestamp_seconds", "When a certificate of this site's identity ends.", []string{"file"}, nil),
		rejected: prometheus.NewDesc("rhumb_identity_rejected", "1 while a certificate's files are no good and the last good one is shown.",
			[]string{"file"}, nil)}
}

// Describe names both series.
func (m *identityMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.ends
	out <- m.rejected
}

// Collect reads what is shown now.
func (m *identityMetrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.own() {
		rejected := 0.0
		if c.Refused != nil {
			rejected = 1
		}
		out <- prometheus.MustNewConstMetric(m.ends, prometheus.GaugeValue, float64(c.Ends.Unix()), c.File)
		out <- prometheus.MustNewConstMetric(m.rejected, prometheus.GaugeValue, rejected, c.File)
	}
}
