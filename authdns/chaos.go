package authdns

import (
	"math"

	"github.com/miekg/dns"
)

// chaos answers the questions by which one finds out whom one reached (RFC 4892);
// anything else in class CH is refused.
func (s *state) chaos(r *reply) {
	r.rcode = dns.RcodeRefused
	if s.self.Hide || (r.q.qtype != dns.TypeTXT && r.q.qtype != dns.TypeANY) {
		return
	}
	var text string
	switch r.q.canon {
	case "id.server.", "hostname.bind.":
		text = s.nsid()
	case "version.bind.", "version.server.":
		text = "rhumb " + s.self.Version
	default:
		return
	}
	r.rcode, r.aa = dns.RcodeSuccess, true
	h := dns.RR_Header{Name: r.q.name, Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS}
	r.answer = []dns.RR{&dns.TXT{Hdr: h, Txt: []string{text}}}
}

// nsid names who answered, and from which state: "ams1 ams1-a 1042.17".
func (s *state) nsid() string {
	return s.self.Site + " " + s.self.Node + " " + s.snapshotName()
}

// snapshotName names the state that answers depend on; "-" before the first.
func (s *state) snapshotName() string {
	if s.snap == nil {
		return "-"
	}
	return s.snap.Name.String()
}

// options are the same for every reply of a state.
func (s *state) options() options {
	o := options{ecsOff: s.ecs.Off, keepalive: uint16(min(s.self.Idle.Milliseconds()/100, math.MaxUint16))}
	if !s.self.Hide {
		o.nsid = s.nsid()
	}
	return o
}
