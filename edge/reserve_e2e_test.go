//go:build e2e

package edge

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhumb/edge/reserve"
)

// fourSites are those of TestSiteOfFour, in the order of their links.
var fourSites = []string{"a", "b", "d", "e"}

// four starts them, each the others' Backup, and gives the client an address for each
// site: what comes from it goes there.
func (w *world) four(capacity int) map[string]*process {
	w.t.Helper()
	out := map[string]*process{}
	for i, n := range fourSites {
		if i > 1 {
			w.host(n)
			w.link(siteNumber(n), n)
		}
		w.in("c", fmt.Sprintf("ip addr add %s/32 dev e0", fromFour(n, vip4)))
		w.in("c", fmt.Sprintf("ip -6 addr add %s/128 dev e0 nodad", fromFour(n, vip6)))
		w.in("r", fmt.Sprintf("ip route add %s/32 via 198.51.100.2", fromFour(n, vip4)))
		w.in("r", fmt.Sprintf("ip -6 route add %s/128 via 2001:db8:1::2", fromFour(n, vip6)))
		w.in("r", fmt.Sprintf("ip rule add from %s lookup %d", fromFour(n, vip4), 100+i))
		w.in("r", fmt.Sprintf("ip -6 rule add from %s lookup %d", fromFour(n, vip6), 100+i))
		w.turn(n, n)
	}
	for i, n := range fourSites {
		rest := append(append([]string(nil), fourSites[:i]...), fourSites[i+1:]...)
		out[n] = w.agent(n, rest[0], func(x *agentArgs) {
			x.Rest, x.Backups, x.Root = strings.Join(rest[1:], " "), true, filepath.Join(w.dir, "root-a")
			x.Capacity, x.Shed, x.PullAfter = capacity, 100*time.Millisecond, time.Second
		})
	}
	for n := range out {
		w.serving(n)
	}
	return out
}

// fromFour is the address of the client whose packets go to a site.
func fromFour(site, vip string) string {
	if vip == vip6 {
		return fmt.Sprintf("2001:db8:200::%d", siteNumber(site))
	}
	return fmt.Sprintf("203.0.113.%d", siteNumber(site))
}

// turn routes the clients of a site to another.
func (w *world) turn(of, to string) {
	w.t.Helper()
	table := 100 + strings.Index("abde", of)
	w.in("r", fmt.Sprintf("ip route replace %s/32 via 198.51.100.%d table %d", vip4, siteNumber(to)*4+2, table))
	w.in("r", fmt.Sprintf("ip -6 route replace %s/128 via 2001:db8:%d::2 table %d", vip6, siteNumber(to)+1, table))
}

// TestSiteOfFour kills one of four sites, each with 0.7 of the sessions that it can serve,
// and the routes turn all of its clients to one of the others. Every session goes on where
// there is room for it, most by way of that one, and no survivor has more than 0.95 of its
// capacity, then or when the sessions could have been pulled. Without a bound one has.
func TestSiteOfFour(t *testing.T) {
	for _, f := range families(0) {
		t.Run(f.name, func(t *testing.T) { siteOfFour(t, f.vip, true) })
	}
	if soak() {
		t.Run("without a bound", func(t *testing.T) { siteOfFour(t, vip4, false) })
	}
}

func siteOfFour(t *testing.T, vip string, bounded bool) {
	w := newWorld(t)
	x, capacity := w.crowd(vip), 40
	if soak() {
		capacity = 100
	}
	limit, told := reserve.Limit(capacity), capacity
	if !bounded {
		told = 0 // each has room for all
	}
	x.N = capacity * 7 / 10
	edges, loads := w.four(told), map[string]*process{}
	var word string
	for _, n := range fourSites {
		x.From = fromFour(n, vip)
		loads[n] = w.start("c", "load", x)
		loads[n].next(&word)
	}
	w.kept(edges, 4*x.N, 4*x.N)
	if bounded {
		w.await("room for the loss of any one", func() bool { return w.reservedWithin(edges, limit) })
	}
	for _, n := range fourSites {
		loads[n].tell("go")
	}
	w.dies("a", edges["a"])
	delete(edges, "a")
	for _, p := range edges {
		p.ask("lost a", &word)
	}
	w.turn("a", "b")
	w.await("all sessions at three sites", func() bool { return w.sum(edges) == 4*x.N })
	w.strayed(edges, bounded, limit)
	most, order, elsewhere := 0, 0.0, 0.0
	for n, p := range edges {
		var r report
		p.ask("state", &r)
		t.Logf("%s: %d of %d sessions, revived %v, strays %v, refusals of its Backups %v, %+v", n, r.Sessions, capacity, r.Revivals, r.Strays, r.Refusals, r.Reserved)
		if most = max(most, r.Sessions); n != "b" {
			elsewhere += r.Revivals[reviveOK]
		}
		order += r.Strays["order"]
	}
	if (most <= limit) != bounded {
		t.Errorf("a survivor has %d sessions of %d; bounded: %t", most, capacity, bounded)
	}
	if order == 0 || elsewhere == 0 {
		t.Errorf("%v packets found their session by the order, %v were revived elsewhere than where they arrive", order, elsewhere)
	}
	for _, n := range fourSites {
		loads[n].tell("end")
	}
	for _, n := range fourSites {
		w.finish(loads[n], x.N)
	}
	w.noResets()
}

// strayed waits until the site where all packets arrive has either declined to pull as many
// sessions as there are elsewhere, or has more than the limit.
func (w *world) strayed(edges map[string]*process, bounded bool, limit int) {
	w.t.Helper()
	var elsewhere float64
	for n, p := range edges {
		var r report
		if p.ask("state", &r); n != "b" {
			elsewhere += r.Revivals[reviveOK]
		}
	}
	w.await("pulls, or none for want of room", func() bool {
		var r report
		edges["b"].ask("state", &r)
		return bounded && r.Declined >= elsewhere || !bounded && r.Sessions > limit
	})
}

// sum is how many sessions there are.
func (w *world) sum(edges map[string]*process) (n int) {
	for _, p := range edges {
		var r report
		p.ask("state", &r)
		n += r.Sessions
	}
	return n
}

// reservedWithin reports whether no loss of one site brings more to another than it
// serves, and whether every session has a Backup.
func (w *world) reservedWithin(edges map[string]*process, limit int) bool {
	for _, p := range edges {
		var r report
		p.ask("state", &r)
		if r.Reserved.Own+r.Reserved.Most > limit || r.Reserved.Bare > 0 || r.Backed != r.Sessions {
			return false
		}
	}
	return true
}
