package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// The kinds of difference, in the order in which they are looked for: the first one
// names an exchange. What servers may do in ways of their own is none of them: the
// order of records, the authority and additional sections beside an answer, EDNS
// options, signatures as such.
const (
	differsSilence  = "silence"  // one of them says nothing
	differsRcode    = "rcode"    // RCODE
	differsReferral = "referral" // one refers, the other answers, or to other name servers
	differsAnswer   = "answer"   // other records in the answer
	differsAA       = "aa"       // only one is authoritative
	differsTTL      = "ttl"      // the same records for another time
)

// replySight is what of a reply is compared, as text.
type replySight struct {
	rcode    string
	aa, tc   bool
	answer   []string // sorted, without TTL
	ttls     []string // the same with TTL
	referral []string // name servers, where there is neither an answer nor a SOA
}

// sightOf reads a reply; ok is false for octets that are none.
func sightOf(data []byte) (s replySight, ok bool) {
	m := new(dns.Msg)
	if m.Unpack(data) != nil || !m.Response {
		return s, false
	}
	s.rcode, s.aa, s.tc = rcodeText(m), m.Authoritative, m.Truncated
	for _, rr := range m.Answer {
		if rr.Header().Rrtype == dns.TypeRRSIG {
			continue // two signers never make the same
		}
		s.answer, s.ttls = append(s.answer, recordText(rr, false)), append(s.ttls, recordText(rr, true))
	}
	if len(m.Answer) == 0 && m.Rcode == dns.RcodeSuccess && !slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA }) {
		for _, rr := range m.Ns {
			if rr.Header().Rrtype == dns.TypeNS {
				s.referral = append(s.referral, recordText(rr, false))
			}
		}
	}
	for _, list := range [][]string{s.answer, s.ttls, s.referral} {
		slices.Sort(list)
	}
	return s, true
}

// rcodeText is the RCODE with its upper half from EDNS.
func rcodeText(m *dns.Msg) string {
	code := m.Rcode
	if opt := m.IsEdns0(); opt != nil {
		code |= opt.ExtendedRcode() &^ 0xf
	}
	if text, ok := dns.RcodeToString[code]; ok {
		return text
	}
	return fmt.Sprintf("RCODE%d", code)
}

// recordText is a record with names in lower case: their case is the asker's.
func recordText(rr dns.RR, ttl bool) string {
	h := rr.Header()
	data := strings.TrimPrefix(rr.String(), h.String())
	switch h.Rrtype {
	case dns.TypeCNAME, dns.TypeNS, dns.TypePTR, dns.TypeMX, dns.TypeSRV, dns.TypeDNAME:
		data = strings.ToLower(data)
	}
	text := strings.ToLower(h.Name) + " " + dns.Type(h.Rrtype).String() + " " + data
	if ttl {
		text += fmt.Sprintf(" for %d s", h.Ttl)
	}
	return text
}

// difference is how two replies differ; the zero value says that they do not.
type difference struct{ kind, theirs, ours string }

// compare holds ours against theirs. Where one was cut off and the other was not,
// neither was asked whole: ok is false then, or where one is no reply.
func compare(theirs, ours []byte) (d difference, ok bool) {
	if theirs == nil || ours == nil {
		if theirs == nil && ours == nil {
			return d, true
		}
		return difference{differsSilence, summary(theirs), summary(ours)}, true
	}
	a, aok := sightOf(theirs)
	b, bok := sightOf(ours)
	if !aok || !bok || a.tc != b.tc {
		return d, false
	}
	join := func(list []string) string { return strings.Join(shortened(list), ", ") }
	switch {
	case a.rcode != b.rcode:
		return difference{differsRcode, a.rcode, b.rcode}, true
	case a.tc:
		return d, true
	case !slices.Equal(a.referral, b.referral):
		return difference{differsReferral, referralText(a), referralText(b)}, true
	case !slices.Equal(a.answer, b.answer):
		return difference{differsAnswer, join(a.answer), join(b.answer)}, true
	case a.aa != b.aa:
		return difference{differsAA, fmt.Sprint("AA=", a.aa), fmt.Sprint("AA=", b.aa)}, true
	case !slices.Equal(a.ttls, b.ttls):
		return difference{differsTTL, join(a.ttls), join(b.ttls)}, true
	}
	return d, true
}

func referralText(s replySight) string {
	if s.referral == nil {
		return "answers: " + strings.Join(shortened(s.answer), ", ")
	}
	return "refers: " + strings.Join(shortened(s.referral), ", ")
}

// shortened keeps lists readable.
func shortened(list []string) []string {
	const most = 4
	if len(list) == 0 {
		return []string{"no records"}
	}
	if len(list) <= most {
		return list
	}
	return append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", len(list)-most))
}

// summary says in short what a reply is.
func summary(data []byte) string {
	if data == nil {
		return "no reply"
	}
	s, ok := sightOf(data)
	if !ok {
		return "no DNS message"
	}
	return s.rcode + ", " + strings.Join(shortened(s.answer), ", ")
}
