//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// foreignPeers puts every stock daemon into the lab: a BIRD, an FRR and our own
// router; Unbound and kresd as resolvers; nginx as web server.
func foreignPeers() []string {
	return []string{"--router", "t-eu=bird", "--router", "t-us=frr",
		"--resolver", "res-eu=unbound", "--resolver", "res-us=kresd", "--resolver", "res-ap=unbound", "--origin", "nginx"}
}

// client is the first client of a region.
func client(region string) string { return "client-" + region + "-1" }

// testResolvers wants that the clients of three regions reach three sites by what
// their machines do by themselves: resolv.conf, a stock resolver that knows the
// root alone, two referrals, an address, HTTP.
func testResolvers(t *testing.T, l *lab) {
	for i, region := range regions() {
		site := sites()[i]
		l.await(patience, "getent in "+region+" names "+site+" alone", func() error {
			out, err := l.exec(client(region), "getent", "ahosts", "www.cdn.demo.test")
			if err != nil || !strings.Contains(out, "STREAM") {
				return fmt.Errorf("%v\n%s", err, out)
			}
			for _, f := range strings.Fields(out) {
				if owner := l.owner[parseAddr(f)]; owner != "" && owner != site {
					return fmt.Errorf("%s of %s", f, owner)
				}
			}
			return nil
		})
		l.servedBy(region, site)
	}
}

// servedBy awaits that a client of a region reaches a site. Its resolver may still know
// what was right while the lab started, until the TTL is over.
func (l *lab) servedBy(region, site string) {
	l.t.Helper()
	l.await(patience, "clients of "+region+" are served by "+site, func() error {
		head, err := l.exec(client(region), "curl", "-sS", "-m", "20", "-o", "/dev/null", "-D", "-", "http://www.cdn.demo.test:8080/healthz")
		if err != nil || !strings.Contains(head, "200 OK") || !strings.Contains(head, "X-Served-By: "+site) {
			return fmt.Errorf("%v\n%s", err, head)
		}
		return nil
	})
}

// testReferrals wants the top level to refer to a set of name servers of more than
// one site, with glue, and every low-level one to name the same set at the apex.
func testReferrals(t *testing.T, l *lab) {
	for _, region := range regions() {
		node := "res-" + region
		top := question{Server: parseAddrPort("192.0.2.1:53"), Name: "www.cdn.demo.test"}
		qs := []question{top}
		for _, site := range sites() {
			qs = append(qs, question{Server: l.nameServer(site), Name: "cdn.demo.test", Type: "NS"})
		}
		answers := l.askIn(node, qs...)
		ref, err := answers[0].msg()
		if err != nil {
			t.Errorf("%s: top level: %v", region, err)
			continue
		}
		set := nsOf(ref.Ns)
		if ref.Authoritative || len(ref.Answer) != 0 || len(set) < 2 {
			t.Errorf("%s: the top level does not refer: %v", region, ref)
		}
		glue := map[string]bool{}
		for _, rr := range ref.Extra {
			if rr.Header().Rrtype == dns.TypeA {
				glue[rr.Header().Name] = true
			}
		}
		for ns := range set {
			if !glue[ns] {
				t.Errorf("%s: the referral has no address for %s", region, ns)
			}
		}
		for i, a := range answers[1:] {
			m, err := a.msg()
			if err != nil || !sameKeys(nsOf(m.Answer), set) {
				t.Errorf("%s: the apex NS of %s is %v (%v), the referral's %v", region, sites()[i], m, err, set)
			}
		}
	}
}

func nsOf(rrs []dns.RR) map[string]bool {
	out := map[string]bool{}
	for _, rr := range rrs {
		if ns, ok := rr.(*dns.NS); ok {
			out[ns.Ns] = true
		}
	}
	return out
}

func sameKeys(a, b map[string]bool) bool {
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return len(a) == len(b)
}
