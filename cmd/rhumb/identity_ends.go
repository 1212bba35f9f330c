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
	registerIdentity(u.metrics, own)
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

// registerIdentity shows this site's certificates as they are when somebody asks. Those
// that there are at the start stay: the last good one of each.
func registerIdentity(r prometheus.Registerer, own func() []config.OwnCertificate) {
	for i, c := range own() {
		labels := prometheus.Labels{"file": c.File}
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rhumb_identity_expiry_timestamp_seconds", ConstLabels: labels,
			Help: "When a certificate of this site's identity ends."},
			func() float64 { return float64(own()[i].Ends.Unix()) }))
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rhumb_identity_rejected", ConstLabels: labels,
			Help: "1 while a certificate's files are no good and the last good one is shown."},
			func() float64 {
				if own()[i].Refused != nil {
					return 1
				}
				return 0
			}))
	}
}
