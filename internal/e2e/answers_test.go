//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestE2EHostAnswers asks as a newcomer does, from the host, for a client of each
// region.
func TestE2EHostAnswers(t *testing.T) {
	l := startLab(t)
	for i, region := range regions() {
		for _, tcp := range []bool{false, true} {
			checkAnswer(t, l, region, sites()[i], question{Name: "www.cdn.demo.test", Type: "A", TCP: tcp, NSID: true})
			checkAnswer(t, l, region, sites()[i], question{Name: "www.cdn.demo.test", Type: "AAAA", TCP: tcp, NSID: true})
		}
	}
}

// checkAnswer wants the two addresses of the near site, for 20 s, for the whole
// block, and the name of the answering site and of its Snapshot.
func checkAnswer(t *testing.T, l *lab, region, site string, q question) {
	t.Helper()
	q.Client = blocks()[region]
	m, err := l.ask(q)
	if err != nil {
		t.Fatalf("%s %s: %v", region, q.Type, err)
	}
	addrs := addrsOf(m)
	if len(addrs) != 2 || l.siteOf(addrs) != site {
		t.Errorf("%s %s tcp=%v: %v, want the two of %s", region, q.Type, q.TCP, addrs, site)
	}
	for _, rr := range m.Answer {
		if rr.Header().Ttl != 20 {
			t.Errorf("%s: TTL %d, want 20", region, rr.Header().Ttl)
		}
	}
	if scope := scopeOf(m); !scope.IsValid() || scope.Bits() == 0 || scope.Bits() > q.Client.Bits() || !scope.Overlaps(q.Client) {
		t.Errorf("%s %s: scope %v, want it to cover %v", region, q.Type, scope, q.Client)
	}
	id := nsidOf(m)
	snapshot := strings.ContainsAny(id, "0123456789") && strings.Contains(id, ".")
	if !slices.ContainsFunc(sites(), func(s string) bool { return strings.Contains(id, s) }) || !snapshot {
		t.Errorf("%s: NSID %q names no site and Snapshot", region, id)
	}
	if m.Rcode != dns.RcodeSuccess || !m.Authoritative {
		t.Errorf("%s: %s, authoritative %v", region, dns.RcodeToString[m.Rcode], m.Authoritative)
	}
}
