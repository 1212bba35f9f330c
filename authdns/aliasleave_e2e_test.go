//go:build e2e

package authdns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// TestTransferAliasPeers: Knot, NSD and BIND answer for aliases with the addresses of their targets,
// an apex too: of a name of ours, and of one that only Knot knows, which has to be looked
// up before the zone leaves at all.
func TestTransferAliasPeers(t *testing.T) {
	if !withinNamespace(t) {
		return
	}
	o := startOurs(t, knotAddr, nsdAddr, bindAddr)
	src := Source{Data: []byte(zoneText("out.test.", 1, inLines(3))), Zone: placement.Zone{Name: "out.test.", Transfer: &o.rules, Aliases: []placement.Alias{
		{Name: "others.out.test.", Target: "h7.in.test."}, {Name: "out.test.", Target: "h2.out.test."}}}}
	peers := []*peer{startPeer(t, "knot", knotAddr, knotConf, "knotd", "-c"), startPeer(t, "nsd", nsdAddr, nsdConf, "nsd", "-d", "-c"), startPeer(t, "bind", bindAddr, bindConf, "named", "-g", "-4", "-c")}
	until(t, "Knot is up", func() (bool, string) { return peers[0].serial("in.test.") == 1, "no answer" })
	if errs := o.server.SetZones([]Source{src}); errs != nil {
		t.Fatal(errs)
	}
	for _, p := range peers {
		for name, want := range map[string]string{"others.out.test.": "198.51.100.8", "out.test.": "198.51.100.3"} {
			until(t, p.name+" answers for "+name, func() (bool, string) {
				got := p.addresses(name)
				return slices.Equal(got, []string{want}), fmt.Sprint(got)
			})
		}
	}
	if log := o.log.String(); strings.Contains(log, "broken off") {
		t.Error("a transfer did not go through")
	}
}

// addresses are those that a peer answers with.
func (p *peer) addresses(name string) (out []string) {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	c := &dns.Client{Timeout: time.Second}
	r, _, err := c.Exchange(m, p.addr)
	if err != nil {
		return []string{err.Error()}
	}
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			out = append(out, a.A.String())
		}
	}
	return out
}
