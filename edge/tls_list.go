package edge

import (
	"net/netip"
	"time"
)

// Listener describes one VIP of our own server for people.
type Listener struct {
	Service string
	VIP     netip.AddrPort
	Speaks  string    // protocols, and whether sessions can move
	Expires time.Time // the certificate in service; zero in clear
	Refused string    // why the certificate's files are not served; "" if they are
}

// Listeners lists the VIPs in the order of the configuration.
func (a *Agent) Listeners() []Listener {
	var out []Listener
	for _, s := range a.view.Load().services {
		l := Listener{Service: s.Name, Speaks: s.speaks()}
		if s.tls != nil {
			l.Expires, l.Refused = s.tls.certs.expiry(), s.tls.certs.rejected()
		}
		for _, v := range s.VIPs {
			l.VIP = v
			out = append(out, l)
		}
	}
	return out
}

// speaks says what a service's clients get. HTTP/2 and sessions that move
// exclude each other, so the operator is told which of the two it is.
func (s *service) speaks() string {
	moves := "sessions move"
	if s.Mode != ModeAct {
		moves = "sessions would move (observe)"
	}
	switch {
	case s.tls == nil:
		return "HTTP/1.1 in clear, " + moves
	case s.tls.export == ExportGroup:
		return "HTTP/1.1 over TLS 1.3, " + moves
	case s.tls.export == ExportSite:
		return "HTTP/1.1 over TLS 1.3, sessions stay at this site"
	}
	return "HTTP/2 and 1.1 over TLS, sessions stay"
}
