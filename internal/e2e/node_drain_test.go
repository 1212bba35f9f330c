//go:build e2e

package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// nodesWorld is one site of three machines with the roles bgp and edge, a fourth with the
// store and the director, and a BIRD in front, which spreads clients over whoever announces.
type nodesWorld struct {
	t                   *testing.T
	router, client, ctl *machine
	nodes               [4]*machine // the first is none
	sum                 string      // of the film
	log                 string      // of the router's changes of routes
}

const nodesBird = `router id 10.0.9.1;
protocol device {}
protocol direct { ipv4; ipv6; }
protocol kernel { merge paths on limit 8; ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { merge paths on limit 8; ipv6 { import none; export where source = RTS_BGP; }; }
include "%s";
`

func newNodesWorld(t *testing.T) *nodesWorld {
	t.Helper()
	etc, identity := nodesFleet(t)
	content := film(t, etc, nodeFile)
	w := &nodesWorld{t: t, router: newMachine(t, "router"), client: newMachine(t, "client"), ctl: newMachine(t, "ctl"), sum: fmt.Sprintf("%x", sha256.Sum256(content))}
	w.router.must("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1")
	w.client.plug(w.router, 9)
	w.client.must("sysctl", "-qw", "net.ipv4.tcp_rmem=4096 65536 65536")
	w.ctl.plug(w.router, 8)
	conf := func(m *machine, roles, more string) string {
		file := filepath.Join(m.dir, "node.yaml")
		write(t, file, fmt.Sprintf("version: 1\nnode: {name: %s, site: ams1, roles: [%s], data_dir: /var/lib/rhumb}\nlisten: {admin: /run/rhumb, http: \"127.0.0.1:8053\"}\nstore: {etcd: {embedded: {ctl: 10.0.8.2}, tls: off}}\nidentity: %s\n%s", m.name, roles, identity, more))
		return file
	}
	bird := fmt.Sprintf(nodesBird, filepath.Join(etc, "bird", "rhumb-peer.conf"))
	w.ctl.start(binary(t), "serve", "--config", conf(w.ctl, "placement", ""))
	soon(t, "the fleet is applied", func() error {
		out, err := w.ctl.command(binary(t), "apply", filepath.Join(etc, "fleet.yaml"), "--yes").CombinedOutput()
		if err != nil {
			return errors.New(string(out))
		}
		return nil
	})
	for i := 1; i <= 3; i++ {
		m := newMachine(t, fmt.Sprintf("n%d", i))
		w.nodes[i] = m
		m.plug(w.router, i)
		bird += fmt.Sprintf("protocol bgp n%[1]d from rhumb { local 10.0.%[1]d.1 as 64501; neighbor 10.0.%[1]d.2 as RHUMB_AS; }\n"+
			"protocol bgp n%[1]dsix from rhumb { local fd00:%[1]d::1 as 64501; neighbor fd00:%[1]d::2 as RHUMB_AS; }\n", i)
		file := conf(m, "bgp, edge", fmt.Sprintf("bgp:\n  asn: 64500\n  router_id: 10.0.%[1]d.2\n  peers: [{addr: 10.0.%[1]d.1, asn: 64501, gtsm: true}, {addr: \"fd00:%[1]d::1\", asn: 64501, gtsm: true}]\n", i))
		m.start(binary(t), "serve", "--config", file, "--roles", "edge")
		m.start(binary(t), "serve", "--config", file, "--roles", "bgp")
	}
	write(t, filepath.Join(w.router.dir, "bird.conf"), bird)
	w.router.start("bird", "-f", "-c", filepath.Join(w.router.dir, "bird.conf"), "-s", filepath.Join(w.router.dir, "bird.ctl"))
	// At prepend the routes of all three are equal, too, and part again on their way up.
	soon(t, "the router hears all without prepends", func() error { return w.announced(1, 2, 3) })
	soon(t, "the router spreads over three", func() error { return w.spreads(1, 2, 3) })
	for i := 1; i <= 3; i++ {
		soon(t, fmt.Sprintf("n%d hears the others", i), func() error {
			if v := w.metric(i, `rhumb_edge_nodes{state="here",unit="rhumb-edge"}`); v != "2" {
				return fmt.Errorf("it hears %q", v)
			}
			return nil
		})
	}
	w.log = filepath.Join(w.router.dir, fmt.Sprintf("ip-%d.log", len(w.router.procs)))
	w.router.start("ip", "-o", "monitor", "route")
	return w
}

// heard is what the router has by a BGP session.
func (w *nodesWorld) heard(session string) string { // birdc ends with 1 where there is nothing
	out, _ := w.router.command("birdc", "-s", filepath.Join(w.router.dir, "bird.ctl"), "show", "route", "all", "protocol", session).CombinedOutput()
	return string(out)
}

// announced wants both routes of these nodes with an AS path of one.
func (w *nodesWorld) announced(nodes ...int) error {
	for _, n := range nodes {
		for _, session := range []string{fmt.Sprintf("n%d", n), fmt.Sprintf("n%dsix", n)} {
			if out := w.heard(session); strings.Count(out, "BGP.as_path: 64500\n") == 0 || strings.Contains(out, "BGP.as_path: 64500 ") {
				return fmt.Errorf("%s: %s", session, out)
			}
		}
	}
	return nil
}

// spreads wants exactly these nodes behind both routes.
func (w *nodesWorld) spreads(nodes ...int) error {
	for _, route := range [][]string{{"ip", "route", "show", "192.0.2.0/24"}, {"ip", "-6", "route", "show", "2001:db8:53::/48"}} {
		out := w.router.must(route...)
		for i := 1; i <= 3; i++ {
			want := slices.Contains(nodes, i)
			if got := strings.Contains(out, fmt.Sprintf("via 10.0.%d.2 ", i)) || strings.Contains(out, fmt.Sprintf("via fd00:%d::2 ", i)); got != want {
				return fmt.Errorf("n%d is a next hop: %t, want %t:\n%s", i, got, want, out)
			}
		}
	}
	return nil
}

// metric reads one of a node, "" if it has none.
func (w *nodesWorld) metric(i int, line string) string {
	out, _ := w.nodes[i].command("curl", "-s", "http://127.0.0.1:8053/metrics").CombinedOutput()
	for l := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), line+" "); ok {
			return v
		}
	}
	return ""
}

// kept counts the sessions of a node of which a neighbour has the record.
func (w *nodesWorld) kept(i int) (sum int) {
	for j := 1; j <= 3; j++ {
		n, _ := strconv.Atoi(w.metric(i, fmt.Sprintf(`rhumb_edge_records{role="owner",site="ams1/n%d",unit="rhumb-edge"}`, j)))
		sum += n
	}
	return sum
}

// TestE2EDrainOfANode drains one of three nodes in the middle of curl's downloads: its
// sessions go on next door, its next hop leaves the router's routes and nothing else moves,
// and it comes back. The last one of a prefix would stay, which bgp tests.
func TestE2EDrainOfANode(t *testing.T) {
	t.Parallel()
	w := newNodesWorld(t)
	results := nodesLoad(t, w.client, nodeDownloads)
	var own [4]int
	soon(t, "all downloads have a Backup", func() error {
		own = [4]int{0, w.kept(1), w.kept(2), w.kept(3)}
		if own[1]+own[2]+own[3] != nodeDownloads || own[1] == 0 {
			return fmt.Errorf("records %v", own)
		}
		return nil
	})
	out := w.nodes[1].must(binary(t), "drain", "ams1/n1", "--reason", "memory", "--wait", "--wait-timeout", "60s")
	if !strings.Contains(out, "no sessions left") {
		t.Errorf("the drain ends with %q", out)
	}
	soon(t, "the router sends it no more", func() error { return w.spreads(2, 3) })
	soon(t, "its route is withdrawn", func() error {
		for _, session := range []string{"n1", "n1six"} {
			if out := w.heard(session); strings.Contains(out, "192.0.2.0/24") || strings.Contains(out, "2001:db8:53::/48") {
				return errors.New(out)
			}
		}
		return nil
	})
	soon(t, "the neighbours have all sessions", func() error { // counted anew each second
		if n, left := w.kept(2)+w.kept(3), w.kept(1); n != nodeDownloads || left > 0 {
			return fmt.Errorf("%d at the neighbours, %d at the node", n, left)
		}
		return nil
	})
	write(t, filepath.Join(w.client.dir, "go"), "")
	soon(t, "the downloads end", func() error {
		if left := results.left(); left > 0 {
			return fmt.Errorf("%d are under way", left)
		}
		return nil
	})
	results.check(t, w.sum)
	for i := 2; i <= 3; i++ {
		if l := w.nodes[i].said(`msg="reviving sessions"`, "peer=ams1/n1 "); l != "" {
			t.Errorf("sessions were revived at n%d, want them handed off: %s", i, l)
		}
	}
	t.Logf("sessions were spread %v", own[1:])
	w.nothingElse()
	if out := w.nodes[1].must(binary(t), "undrain", "ams1/n1"); !strings.Contains(out, "takes sessions again") {
		t.Errorf("the way back is %q", out)
	}
	soon(t, "the router sends it packets again", func() error { return w.spreads(1, 2, 3) })
}

// said returns the first line of a machine's logs that has all of these.
func (m *machine) said(words ...string) string {
	logs, _ := filepath.Glob(filepath.Join(m.dir, "*.log"))
	for _, file := range logs {
		b, _ := os.ReadFile(file)
		for l := range strings.Lines(string(b)) {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(l, word) }) {
				return l
			}
		}
	}
	return ""
}

// nothingElse: while the node went, the router had both others in its route at all times.
func (w *nodesWorld) nothingElse() {
	w.t.Helper()
	b, err := os.ReadFile(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	seen := false
	for l := range strings.Lines(string(b)) {
		if !strings.Contains(l, "192.0.2.0/24") {
			continue
		}
		seen = true
		if !strings.Contains(l, "via 10.0.2.2 ") || !strings.Contains(l, "via 10.0.3.2 ") {
			w.t.Errorf("the other nodes' route moved: %s", l)
		}
	}
	if !seen {
		w.t.Errorf("the router's log shows no change:\n%s", b)
	}
}
