package main

import (
	"fmt"
	"io"
	"time"

	"rhumb/placement"
)

// alarmEdgeCertificate tells that a service goes on with its last good certificate.
const alarmEdgeCertificate = "EdgeCertificateRejected"

// listeners tells what our own server speaks where.
func (e *edgeRole) listeners() []placement.EdgeListener {
	var out []placement.EdgeListener
	for _, l := range e.agent.Listeners() {
		out = append(out, placement.EdgeListener{Service: l.Service, VIP: l.VIP, Speaks: l.Speaks, Expires: l.Expires, Refused: l.Refused})
	}
	return out
}

// certificateAlarms names each service once, however many addresses it has.
func certificateAlarms(listeners []placement.EdgeListener) []placement.Alarm {
	var out []placement.Alarm
	told := make(map[string]bool)
	for _, l := range listeners {
		if l.Refused != "" && !told[l.Service] {
			told[l.Service] = true
			out = append(out, placement.Alarm{Kind: alarmEdgeCertificate, Object: l.Service,
				Text: fmt.Sprintf("the certificate that ends %s is served on: %s", l.Expires.UTC().Format(time.RFC3339), l.Refused)})
		}
	}
	return out
}

// writeListeners draws them; a site without our own server has none.
func writeListeners(w io.Writer, s style, listeners []placement.EdgeListener, now time.Time) {
	if len(listeners) == 0 {
		return
	}
	t := newTable(s, "LISTENER", "SERVICE", "SPEAKS", ">CERTIFICATE ENDS IN", "")
	t.indent = "  "
	for _, l := range listeners {
		ends := ""
		if !l.Expires.IsZero() {
			ends = span(l.Expires.Sub(now))
		}
		t.add(l.VIP.String(), l.Service, l.Speaks, ends, l.Refused)
	}
	t.write(w)
}
