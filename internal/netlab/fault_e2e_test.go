//go:build e2e

package netlab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dump is everything that healing must bring back, as sorted lines: flags,
// addresses and routes of every interface in every host.
func dump(t *testing.T, n *Net) string {
	t.Helper()
	var lines []string
	for _, node := range n.Topology.Nodes {
		h := mustHost(t, n, node.Name)
		links, err := h.nl.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			lines = append(lines, fmt.Sprintf("%s link %s up=%v", h.Name, l.Attrs().Name, l.Attrs().RawFlags&unix.IFF_UP != 0))
			addrs, err := h.nl.AddrList(l, unix.AF_UNSPEC)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range addrs {
				lines = append(lines, fmt.Sprintf("%s addr %s %s valid=%d", h.Name, l.Attrs().Name, a.IPNet, a.ValidLft))
			}
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			routes, err := h.nl.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range routes {
				r.Flags &= int(netlink.FLAG_ONLINK)
				lines = append(lines, fmt.Sprintf("%s route %d %s", h.Name, r.Table, r))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// differ names the lines which only one of two dumps has.
func differ(before, after string) string {
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	var out []string
	for _, l := range old {
		if !slices.Contains(now, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range now {
		if !slices.Contains(old, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}

// mustSame waits until a dump is like the one before: the kernel brings back routes of
// a link that comes up when its own work queue gets to it.
func mustSame(t *testing.T, n *Net, before string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		d := differ(before, dump(t, n))
		if d == "" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("a difference remains:\n%s", d)
			return
		}
	}
}

func fastLab() Topology {
	return Lab(LabOptions{Clients: 2, Delay: func(a, b string) time.Duration { return time.Millisecond }})
}

// reaches asks until the wanted node answers or time is up: after healing the
// neighbours must be found anew.
func reaches(t *testing.T, from *Host, to netip.Addr, want string) bool {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if tripWithin(t, time.Second, from, to) == want {
			return true
		}
	}
	return false
}

func TestHealRestoresExactly(t *testing.T) {
	n := build(t, fastLab())
	echo(t, n, "nyc1")
	client := mustHost(t, n, "client-eu-1")
	target := n.Topology.Addresses("nyc1")
	before := dump(t, n)
	for _, f := range []Fault{
		{Kind: Cut, Node: "nyc1"}, {Kind: Kill, Node: "nyc1"}, {Kind: Cut, Node: "t-us"},
		{Kind: Slow, Node: "nyc1", Delay: 5 * time.Millisecond}, {Kind: Mute, Node: "nyc1"}, {Kind: Flap, Node: "nyc1"},
		{Kind: Blackhole, Node: "nyc1", Prefixes: prefixes("203.0.113.0/24", "2001:db8:100::/40")},
		{Kind: Lossy, Node: "client-eu-1", Share: 1},
	} {
		t.Run(string(f.Kind)+" "+f.Node, func(t *testing.T) {
			if err := n.Break(f); err != nil {
				t.Fatal(err)
			}
			if got := n.Faults(); len(got) != 1 || got[0].Kind != f.Kind {
				t.Errorf("faults %+v", got)
			}
			for _, a := range target {
				if f.Kind == Slow {
					if !reaches(t, client, a, "nyc1") {
						t.Errorf("during the fault %s does not answer", a)
					}
				} else if got := tripWithin(t, 100*time.Millisecond, client, a); got != "" { // to be wrong in
					t.Errorf("during the fault %s answered %q", a, got)
				}
			}
			if err := n.Heal(f.Node); err != nil {
				t.Fatal(err)
			}
			mustSame(t, n, before)
			for _, a := range target {
				if !reaches(t, client, a, "nyc1") {
					t.Errorf("after healing %s does not answer", a)
				}
			}
		})
	}
}

func TestKillEndsProcesses(t *testing.T) {
	n := build(t, fastLab())
	cmd := exec.Command("sleep", "1000")
	if err := mustHost(t, n, "ams1").Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := n.Break(Fault{Kind: Kill, Node: "ams1"}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(interface{ Signaled() bool }).Signaled() == false {
		t.Errorf("the process ended with %v", err)
	}
}

// A mesh link goes down; the detour by the third router carries on.
func TestDetour(t *testing.T) {
	n := build(t, fastLab())
	echo(t, n, "nyc1")
	if err := n.Break(Fault{Kind: Cut, Node: "t-eu", Towards: "t-us"}); err != nil {
		t.Fatal(err)
	}
	for _, a := range n.Topology.Addresses("nyc1") {
		if !reaches(t, mustHost(t, n, "client-eu-1"), a, "nyc1") {
			t.Errorf("no way round to %s", a)
		}
	}
}

func TestFlapTogglesUntilHealed(t *testing.T) {
	n := build(t, forkTopology())
	h := mustHost(t, n, "site")
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	if err := h.Do(func() error { return netlink.LinkSubscribe(updates, done) }); err != nil {
		t.Fatal(err)
	}
	if err := n.Break(Fault{Kind: Flap, Node: "site", Delay: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	var phases []bool
	for len(phases) < 6 {
		select {
		case u := <-updates:
			up := u.Attrs().RawFlags&unix.IFF_UP != 0
			if len(phases) == 0 && up {
				continue // still from building
			}
			if u.Attrs().Name == "router" && (len(phases) == 0 || phases[len(phases)-1] != up) {
				phases = append(phases, up)
			}
		case <-time.After(patience):
			t.Fatalf("phases %v, then nothing for %s", phases, patience)
		}
	}
	if err := n.Heal("site"); err != nil {
		t.Fatal(err)
	}
	if link, err := h.nl.LinkByName("router"); err != nil || link.Attrs().RawFlags&unix.IFF_UP == 0 {
		t.Errorf("healed, yet %v, %v", link, err)
	}
}

func TestLossyShareOfABareLink(t *testing.T) {
	topo := forkTopology()
	topo.Links[0].Impair = Impairment{}
	n := build(t, topo)
	echo(t, n, "router")
	if err := n.Break(Fault{Kind: Lossy, Node: "client", Share: 0.2}); err != nil {
		t.Fatal(err)
	}
	c, err := mustHost(t, n, "client").Dial(t.Context(), "udp", fmt.Sprintf("198.51.100.2:%d", echoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const count = 2000
	got := 0
	b := make([]byte, 64)
	for range count {
		c.Write([]byte("who"))
		c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		for {
			if _, err := c.Read(b); err != nil {
				break
			}
			got++
			c.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
		}
	}
	// What a busy machine had not read in its turn.
	for c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); ; got++ {
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	if share := float64(got) / count; share < 0.56 || share > 0.72 { // 0.8 each way: 0.64
		t.Errorf("%.2f of the round trips arrived, want about 0.64", share)
	}
}

// TestLiftLeavesTheRest: of three faults at one place, the one that is named is undone.
func TestLiftLeavesTheRest(t *testing.T) {
	n := build(t, fastLab())
	before := dump(t, n)
	lossy := Fault{Kind: Lossy, Node: "nyc1", Towards: "t-us", Share: 0.5}
	for _, f := range []Fault{lossy, {Kind: Cut, Node: "nyc1", Towards: "t-us"}, {Kind: Mute, Node: "t-us", Towards: "nyc1"}} {
		if err := n.Break(f); err != nil {
			t.Fatal(err)
		}
	}
	for i, lift := range [][3]string{{"cut", "nyc1", "t-us"}, {"mute", "t-us", "nyc1"}, {"lossy", "nyc1", "t-us"}} {
		if err := n.Lift(FaultKind(lift[0]), lift[1], lift[2]); err != nil {
			t.Fatal(err)
		}
		left := n.Faults()
		if len(left) != 2-i || i < 2 && left[0].Kind != Lossy {
			t.Errorf("after lifting %v there are the faults %+v", lift, left)
		}
	}
	mustSame(t, n, before)
	if err := n.Lift(Cut, "nyc1", "t-us"); err == nil {
		t.Error("a fault that there is not was lifted")
	}
}
