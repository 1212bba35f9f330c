package authdns

import (
	"net/netip"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// asker is what is known of a request beside its octets.
type asker struct {
	addr  netip.AddrPort
	local netip.AddrPort // the address asked, of a stream
	level placement.Level
	tcp   bool
	tls   bool // tcp, encrypted
	https bool // tls, and the connection is HTTP's
	quic  bool // tls, and the connection is QUIC's
	// jar judges cookies at the time now, in seconds of Unix; nil: none are spoken.
	jar *jar
	now uint32
	// pressed is set where there is more to do than can be done: whoever speaks
	// cookies has to show a good one first (RFC 7873 section 5.2.3).
	pressed bool
	// funds pay for signatures of names that do not exist; nil: the Server's own do.
	funds *supply
}

// outcome tells the Server what to count.
type outcome struct {
	zone      string
	qtype     uint16
	rcode     int
	silent    bool
	truncated bool
	ecs       ecsUse
	cookie    cookieUse
	wildcard  bool // the name asked for is one of very many
	absent    bool // it does not exist, and a proof says so
	decision  *decision
	// personal is set where the reply depends on the resolver's address.
	personal bool
	// fleeting is set where it depends on what names of others have at the moment.
	fleeting bool
	// unsigned is set where a proof was not made, as the budget is spent.
	unsigned bool
}

// ecsUse is what became of a client subnet option.
type ecsUse string

const (
	ecsNone    ecsUse = "none"    // not sent
	ecsUsed    ecsUse = "used"    // the answer was chosen by it
	ecsIgnored ecsUse = "ignored" // the answer does not depend on the client
	ecsOff     ecsUse = "off"     // switched off by the operator
)

// answer is the whole path of a query: it writes the reply to in into out, which
// holds at least limit octets, and returns its length; 0 means no reply. It is a
// pure function of the octets, the asker and the state.
func (s *state) answer(in, out []byte, from asker) (int, outcome) {
	q, rcode := parse(in, from.tcp)
	o := outcome{qtype: q.qtype, rcode: rcode, ecs: ecsNone}
	if rcode == silence {
		o.silent = true
		return 0, o
	}
	r := reply{q: &q, rcode: rcode, opts: s.options()}
	var cookie [cookieLen]byte
	if o.cookie = from.jar.judge(&cookie, q.edns.cookie, from.addr.Addr(), from.now); o.cookie != cookieNone {
		r.cookie = cookie[:]
	}
	switch {
	case rcode != dns.RcodeSuccess:
	case q.question == nil && r.cookie == nil:
		r.rcode = dns.RcodeFormatError
	case from.pressed && !from.tcp && (o.cookie == cookieClient || o.cookie == cookieBad):
		r.rcode = dns.RcodeBadCookie
	case q.question != nil:
		s.decide(&r, from, &o)
	}
	// Over QUIC every reply is padded that can be, asked for or not (RFC 9250 section 5.4).
	r.padded = from.tls && q.edns.padding || from.quic && q.edns.present
	// How long a connection may idle HTTP says in its own words (RFC 7828 section 3.2
	// is of DNS over TCP).
	q.edns.keepalive = q.edns.keepalive && !from.https
	n, truncated := r.pack(out, r.limit(from.tcp))
	o.rcode, o.truncated = r.rcode, truncated
	if q.edns.ecs != nil && o.ecs == ecsNone {
		o.ecs = ecsIgnored
	}
	if q.edns.ecs != nil && s.ecs.Off {
		o.ecs = ecsOff
	}
	return n, o
}

// decide takes a well-formed question to whoever answers it.
func (s *state) decide(r *reply, from asker, o *outcome) {
	switch r.q.qclass {
	case dns.ClassINET, dns.ClassANY:
	case dns.ClassCHAOS:
		s.chaos(r)
		return
	default:
		r.rcode = dns.RcodeRefused
		return
	}
	if rcode := refusedType(r.q.qtype); rcode != dns.RcodeSuccess {
		r.rcode, r.ede = rcode, refusedText(r.q.qtype)
		return
	}
	z := s.forest(from.level).find(r.q.canon, r.q.qtype)
	if z == nil {
		// No upward referral: it would only help to amplify (RFC 8499, lame).
		r.rcode, r.ede = dns.RcodeRefused, &extended{code: edeNotAuthoritative}
		return
	}
	o.zone = z.name
	if z.hidden && (r.q.qtype != dns.TypeSOA || r.q.canon != z.name) {
		// It tells whom we serve, in names that nobody looks up: those who follow it ask
		// for its serial, and copy it (RFC 9432 section 7).
		r.rcode, r.ede = dns.RcodeRefused, &extended{code: edeProhibited}
		return
	}
	if z.zone == nil {
		r.notReady("zone not loaded")
		if z.unserved != "" { // RFC 8914 section 4.25
			r.ede = &extended{edeInvalidData, z.unserved}
		}
		return
	}
	v := visit{state: s, zone: z, from: from, reply: r, out: o}
	v.resolve()
	v.secure()
}

// refusedType says with which RCODE a type is turned away whatever the name.
func refusedType(t uint16) int {
	switch t {
	case dns.TypeAXFR, dns.TypeIXFR:
		return dns.RcodeRefused
	case dns.TypeOPT, dns.TypeTSIG, dns.TypeTKEY, dns.TypeNXNAME:
		return dns.RcodeFormatError
	case dns.TypeMAILA, dns.TypeMAILB:
		return dns.RcodeNotImplemented
	}
	return dns.RcodeSuccess
}

// notReady says that we ought to know and do not yet, which a resolver remembers
// for seconds only (RFC 9520), where NXDOMAIN would stay.
func (r *reply) notReady(why string) {
	r.rcode, r.aa = dns.RcodeServerFailure, false
	r.answer, r.authority = nil, nil
	r.ede = &extended{edeNotReady, why}
}
