package main

import (
	"rhumb/placement"
)

// Alarms of the role health, as its record and the log of events name them.
const (
	alarmCertificateEnds     = "CertificateEnds"
	alarmCertificateEndsSoon = "CertificateEndsSoon"
	alarmCheckBlind          = "CheckBlind"
)

// healthAlarms are what an operator should know of a role's looks and what takes
// nothing down: a certificate that ends, a check that cannot see. One for each
// cluster and check, the worst one.
func healthAlarms(h *placement.HealthStats) []placement.Alarm {
	if h == nil {
		return nil
	}
	var out []placement.Alarm
	told := make(map[string]bool)
	for _, kind := range []string{alarmCertificateEndsSoon, alarmCertificateEnds, alarmCheckBlind} {
		for i := range h.Checks {
			c := &h.Checks[i]
			object := c.Cluster.String() + " " + c.Check
			if alarmOf(c) == kind && !told[object] {
				told[object] = true
				out = append(out, placement.Alarm{Kind: kind, Object: object, Text: c.Address.String() + ": " + c.Cause})
			}
		}
	}
	return out
}

func alarmOf(c *placement.CheckStatus) string {
	switch {
	case c.Blind && c.Result != placement.LookAway: // that is as it should be
		return alarmCheckBlind
	case c.Result == "alarm" || c.Result == "expired" && c.Kind == "tls":
		return alarmCertificateEndsSoon
	case c.Result == "warn":
		return alarmCertificateEnds
	}
	return ""
}
