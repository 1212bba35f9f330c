package authdns

import (
	"bytes"
	"net/netip"

	"rhumb/placement"
)

// Reply is what a Server makes of a query that came over no socket.
type Reply struct {
	// Data is the message; nil for silence.
	Data []byte
	// Zone answered; empty where none of ours did.
	Zone string
	// Service, Site and Reason tell of a steered name whom it was given, and why.
	Service, Site, Reason string
}

// Ask answers a query as if it had come from an address over UDP, or TCP, to a listener
// of a level. It counts nothing and limits nobody: it is for looking at what would be
// answered.
func (s *Server) Ask(query []byte, from netip.AddrPort, level placement.Level, tcp bool) Reply {
	out := make([]byte, maxTCP)
	n, o := s.current.Load().answer(query, out, asker{addr: from, level: level, tcp: tcp, jar: s.shield.jar.Load(), now: uint32(s.now().Unix())})
	r := Reply{Zone: o.zone}
	if n > 0 {
		r.Data = bytes.Clone(out[:n])
	}
	if d := o.decision; d != nil {
		r.Service, r.Site, r.Reason = d.service, d.site, d.reason
	}
	return r
}
