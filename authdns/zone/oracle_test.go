package zone

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// oracle answers by RFC 1034 section 4.3.2 and RFC 4592 read literally, from a
// flat list of names: slow, and without a tree.
type oracle map[string]map[uint16]bool

// exists tells whether a name or anything below it has records.
func (o oracle) exists(name string) bool {
	for owner := range o {
		if dns.IsSubDomain(name, owner) {
			return true
		}
	}
	return false
}

// lookup returns kind and owner as Lookup does.
func (o oracle) lookup(name string, qtype uint16) (Kind, string) {
	const origin = "demo.test."
	labels := dns.SplitDomainName(name)
	encloser := origin
	for i := len(labels) - 2; i >= 0; i-- {
		at := strings.Join(labels[i:], ".") + "."
		types := o[at]
		if at != origin && types[dns.TypeNS] && (at != name || qtype != dns.TypeDS) {
			return Delegation, at
		}
		if at != name && types[dns.TypeDNAME] {
			return DNAME, at
		}
		if o.exists(at) {
			encloser = at
		}
	}
	if o.exists(name) {
		return o.at(name, qtype), name
	}
	if o.exists("*." + encloser) {
		return o.at("*."+encloser, qtype), name
	}
	return NXDomain, name
}

func (o oracle) at(name string, qtype uint16) Kind {
	switch types := o[name]; {
	case types[qtype]:
		return Answer
	case types[dns.TypeCNAME]:
		return CNAME
	}
	return NoData
}

// TestLookupOracle compares the tree with the oracle on random zones, asking for
// every name of a small universe.
func TestLookupOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 11))
	universe := names([]string{"a", "b", "*"}, 3)
	rdata := map[uint16]string{dns.TypeA: "192.0.2.1", dns.TypeTXT: `"x"`, dns.TypeCNAME: "a", dns.TypeNS: "ns1", dns.TypeDNAME: "elsewhere.test."}
	types := []uint16{dns.TypeA, dns.TypeTXT, dns.TypeA, dns.TypeCNAME, dns.TypeNS, dns.TypeDNAME}
	right := 0
	for range 2000 {
		o := oracle{"demo.test.": {dns.TypeSOA: true, dns.TypeNS: true}, "ns1.demo.test.": {dns.TypeA: true}}
		text := head
		for range 1 + rnd.IntN(6) {
			n, qt := universe[rnd.IntN(len(universe))], types[rnd.IntN(len(types))]
			text += fmt.Sprintf("%s IN %s %s\n", n, dns.Type(qt), rdata[qt])
			if o[n] == nil {
				o[n] = make(map[uint16]bool)
			}
			o[n][qt] = true
		}
		z, err := Parse("r", "demo.test.", strings.NewReader(text))
		if err != nil {
			continue // a zone that no server would load
		}
		right++
		for _, n := range universe {
			for _, qt := range []uint16{dns.TypeA, dns.TypeDS, dns.TypeCNAME} {
				r := z.Lookup(n, qt)
				if kind, owner := o.lookup(n, qt); r.Kind != kind || r.Owner != owner {
					t.Fatalf("%s %s: tree says %v %s, oracle %v %s, in\n%s", n, dns.Type(qt), r.Kind, r.Owner, kind, owner, text)
				}
			}
		}
	}
	if right < 500 {
		t.Errorf("only %d zones were right: the test has lost its teeth", right)
	}
}

// names returns all names below demo.test. of up to depth of these labels.
func names(labels []string, depth int) []string {
	var out []string
	level := []string{"demo.test."}
	for range depth {
		var next []string
		for _, l := range labels {
			for _, n := range level {
				next = append(next, l+"."+n)
			}
		}
		out, level = append(out, next...), next
	}
	return out
}

// TestWithOracle: a zone with marks looks up as one in which the marked names
// stand in the file, but for what is at the marks themselves.
func TestWithOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 5))
	universe := names([]string{"a", "b", "*"}, 3)
	for range 500 {
		text, marked := head, head
		var marks []Mark
		for range 1 + rnd.IntN(4) {
			n := universe[rnd.IntN(len(universe))]
			text += n + " IN TXT \"x\"\n"
			m := universe[rnd.IntN(len(universe))]
			marks = append(marks, Mark{Name: m, Value: m})
			marked += n + " IN TXT \"x\"\n" + m + " IN TXT \"x\"\n"
		}
		laid, filed := parse(t, text).With(marks), parse(t, marked)
		for _, n := range universe {
			a, b := laid.Lookup(n, dns.TypeA), filed.Lookup(n, dns.TypeA)
			if a.Kind != b.Kind || a.Wildcard != b.Wildcard {
				t.Fatalf("%s: with marks %v, in the file %v:\n%s%v", n, a.Kind, b.Kind, text, marks)
			}
		}
	}
}
