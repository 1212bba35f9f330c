package authdns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// randomZone writes a zone of few labels, so that names meet: cuts, wildcards,
// aliases, DNAMEs and names spelled out in each other's records. Many are wrong.
func randomZone(r *rand.Rand, origin string) string {
	labels := []string{"a", "x", "xx", "ns", "*", "cdn"}
	name := func() string {
		n := labels[r.IntN(len(labels))]
		for r.IntN(3) == 0 {
			n = labels[r.IntN(len(labels))] + "." + n
		}
		return n
	}
	target := func() string {
		if r.IntN(4) == 0 {
			return name() + ".test."
		}
		return strings.ReplaceAll(name(), "*", "a")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s\n$TTL 300\n@ SOA %s %s 1 2 3 4 5\n@ NS %s\n", origin, target(), target(), target())
	for range 1 + r.IntN(8) {
		switch r.IntN(8) {
		case 0:
			fmt.Fprintf(&b, "%s NS %s\n", name(), target())
		case 1:
			fmt.Fprintf(&b, "%s CNAME %s\n", name(), target())
		case 2:
			fmt.Fprintf(&b, "%s DNAME %s\n", name(), target())
		case 3:
			fmt.Fprintf(&b, "%s MX 10 %s\n", name(), target())
		case 4:
			fmt.Fprintf(&b, "%s AAAA 2001:db8::%d\n", name(), r.IntN(9))
		default:
			fmt.Fprintf(&b, "%s A 192.0.2.%d\n", name(), r.IntN(9))
		}
	}
	return b.String()
}

// randomZones are some of demo.test and below, as far as they parse.
func randomZones(r *rand.Rand) (zones map[string]*loaded, text string) {
	zones = make(map[string]*loaded)
	for _, origin := range []string{"demo.test.", "cdn.demo.test.", "a.cdn.demo.test.", "x.demo.test."} {
		file := randomZone(r, origin)
		z, err := zone.Parse(origin, origin, strings.NewReader(file))
		if err != nil || r.IntN(3) == 0 {
			continue
		}
		l := &loaded{zone: z, meta: placement.Zone{Name: origin, Level: []placement.Level{"", low, top}[r.IntN(3)]}}
		if r.IntN(3) == 0 {
			l.meta.NameServers = []string{"ns", "www", "nope"}[r.IntN(3)]
		}
		zones[origin] = l
		text += fmt.Sprintf("%s %+v\n%s", origin, l.meta, file)
	}
	return zones, text
}

// TestQuickRandomZones: whatever the zones are, and whichever were there before,
// the fast path says what the slow one does.
func TestQuickRandomZones(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 53))
	labels := []string{"a", "x", "xx", "ns", "*", "cdn", "yy", "ns-ams1", "www"}
	snaps := []*placement.Snapshot{nil, fleet(t, plan{}), fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}}), fleet(t, plan{mode: placement.Observe})}
	p := map[placement.Level]*paths{}
	var before *state
	rounds, quick := 200, 0
	for range rounds {
		zones, text := randomZones(r)
		st := compile(self, zones, snaps[r.IntN(len(snaps))], before)
		before = st
		for _, l := range []placement.Level{top, low} {
			if p[l] == nil {
				p[l] = newPaths(t, st, l)
			}
			for _, w := range []*worker{p[l].fast, p[l].slow} {
				w.server.current.Store(st)
				w.renew(newLedger(st))
			}
			for range 250 {
				name := "demo.test."
				for range 1 + r.IntN(4) {
					name = labels[r.IntN(len(labels))] + "." + name
				}
				q := ask(t, name+" "+dns.TypeToString[[]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeMX, dns.TypeCNAME, dns.TypeDS}[r.IntN(6)]], edns0())
				src := netip.AddrPortFrom(netip.MustParseAddr([]string{euResolver, usResolver, elsewhere}[r.IntN(3)]), 1)
				if n := p[l].fast.quickly(st, q, p[l].got, src); n > 0 {
					quick++
					if m := p[l].slow.server.handle(q, p[l].want, asker{addr: src, level: l}, p[l].slow.tally); string(p[l].got[:n]) != string(p[l].want[:m]) {
						t.Fatalf("%s, %s, snapshot %s\nfast %s\nslow %s\n%s", name, l, st.snapshotName(), unpack(t, p[l].got[:n]), unpack(t, p[l].want[:m]), text)
					}
				}
			}
		}
	}
	if quick < rounds*20 {
		t.Errorf("only %d queries took the fast path", quick)
	}
}
