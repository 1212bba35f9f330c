//go:build e2e

package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// downloads of the test below, and their size: far more than buffers hold.
const (
	nodeDownloads = 24
	nodeFile      = 6 << 20
)

// nodesFleet makes the fleet of one site with three edge nodes, and its identity.
func nodesFleet(t *testing.T) (etc, identity string) {
	t.Helper()
	etc = samples(t)
	for site, edge := range map[string]string{"nyc1": "    edge: 198.51.100.73:5381\n", "tyo1": "    edge: 198.51.100.137:5381\n"} {
		edit(t, filepath.Join(etc, "sites", site+".yaml"), edge, "")
	}
	identity = filepath.Join(t.TempDir(), "ams1")
	group := filepath.Join(t.TempDir(), "group")
	m := newMachine(t, "keys")
	m.must(binary(t), "identity", "init", "--group", group)
	m.must(binary(t), "identity", "join", "ams1", "--group", group, "--out", identity)
	nodes := "    identity: " + filepath.Join(identity, "site.crt") + "\n    nodes:\n"
	for i := 1; i <= 3; i++ {
		nodes += fmt.Sprintf("      n%d: {edge: \"10.0.%d.2:5381\", beats: [\"10.0.%d.2:5382\"]}\n", i, i, i)
	}
	edit(t, filepath.Join(etc, "sites", "ams1.yaml"), "    edge: 198.51.100.9:5381\n", nodes)
	edit(t, filepath.Join(etc, "sites", "ams1.yaml"), "    sessions: 50000\n", "") // of a site with one edge
	write(t, filepath.Join(etc, "services", "vod.yaml"), `services:
  vod:
    names: [vod.cdn.demo.test]
    clusters: [web]
    policy: nearest
    check: web
    edge: {kind: content, vips: ["192.0.2.11:80", "[2001:db8:53::11]:80"], root: `+etc+`/vod, revival: act}
`)
	return etc, identity
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// film makes what a fleet's service vod has to give.
func film(t *testing.T, etc string, size int) []byte {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content)
	write(t, filepath.Join(etc, "vod", "film.bin"), string(content))
	return content
}

// serves starts an edge on a machine: a node of a fleet, with its identity.
func (m *machine) serves(etc, identity, node string) {
	m.t.Helper()
	conf := filepath.Join(m.dir, "node.yaml")
	write(m.t, conf, fmt.Sprintf("version: 1\nnode: {%s, data_dir: /var/lib/rhumb}\nlisten: {admin: /run/rhumb, http: \"127.0.0.1:8053\"}\nstore: file\nidentity: %s\n", node, identity))
	m.must(binary(m.t), "apply", filepath.Join(etc, "fleet.yaml"), "--store", stateFile)
	m.start(binary(m.t), "serve", "--config", conf)
}

// plug joins a machine to a router: 10.0.I.2 and fd00:I::2 there.
func (m *machine) plug(router *machine, i int) {
	m.t.Helper()
	far := "to" + strconv.Itoa(i)
	m.must("ip", "link", "add", "up0", "type", "veth", "peer", "name", far, "netns", strconv.Itoa(router.pid))
	address := func(m *machine, dev string, last int) {
		m.must("sh", "-c", fmt.Sprintf("sysctl -qw net.ipv6.conf.%[1]s.accept_dad=0 && ip addr add 10.0.%[2]d.%[3]d/24 dev %[1]s && ip -6 addr add fd00:%[2]d::%[3]d/64 dev %[1]s nodad && ip link set %[1]s up", dev, i, last))
	}
	address(m, "up0", 2)
	address(router, far, 1)
	m.must("sh", "-c", fmt.Sprintf("ip route add default via 10.0.%[1]d.1 && ip -6 route add default via fd00:%[1]d::1", i))
}

// spread has a router spread clients' flows over some of the nodes.
func (m *machine) spread(nodes ...int) {
	m.t.Helper()
	four, six := "ip route replace 192.0.2.11/32", "ip -6 route replace 2001:db8:53::11/128"
	for _, i := range nodes {
		four += fmt.Sprintf(" nexthop via 10.0.%d.2", i)
		six += fmt.Sprintf(" nexthop via fd00:%d::2", i)
	}
	m.must("sh", "-c", four+"; ip -6 route del 2001:db8:53::11/128 2>/dev/null; "+six)
}

// TestE2ENodesOfASite runs three machines with role edge behind one router that spreads
// clients over them, and kills one in the middle of curl's downloads. Its neighbours notice
// by its beats and go on with its sessions: every download has every byte.
func TestE2ENodesOfASite(t *testing.T) {
	t.Parallel()
	etc, identity := nodesFleet(t)
	content := film(t, etc, nodeFile)
	router, client := newMachine(t, "router"), newMachine(t, "client")
	router.must("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1")
	client.plug(router, 9)
	client.must("sysctl", "-qw", "net.ipv4.tcp_rmem=4096 65536 65536")
	nodes := make([]*machine, 4) // the first is none
	for i := 1; i <= 3; i++ {
		m := newMachine(t, fmt.Sprintf("n%d", i))
		nodes[i] = m
		m.plug(router, i)
		m.serves(etc, identity, fmt.Sprintf("name: n%d, site: ams1, roles: [edge]", i))
	}
	router.spread(1, 2, 3)
	metric := func(i int, line string) string {
		out, _ := nodes[i].command("curl", "-s", "http://127.0.0.1:8053/metrics").CombinedOutput()
		for l := range strings.Lines(string(out)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(l), line+" "); ok {
				return v
			}
		}
		return ""
	}
	for i := 1; i <= 3; i++ {
		soon(t, fmt.Sprintf("n%d hears the others", i), func() error {
			if v := metric(i, `rhumb_edge_nodes{state="here",unit="rhumb-edge"}`); v != "2" {
				return fmt.Errorf("it hears %q", v)
			}
			return nil
		})
	}
	results := nodesLoad(t, client, nodeDownloads)
	kept := func(i int) (sum int) {
		for j := 1; j <= 3; j++ {
			n, _ := strconv.Atoi(metric(i, fmt.Sprintf(`rhumb_edge_records{role="owner",site="ams1/n%d",unit="rhumb-edge"}`, j)))
			sum += n
		}
		return sum
	}
	var own [4]int
	soon(t, "all downloads have a Backup", func() error {
		own = [4]int{0, kept(1), kept(2), kept(3)}
		if own[1]+own[2]+own[3] != nodeDownloads || own[1] == 0 {
			return fmt.Errorf("records %v", own)
		}
		return nil
	})
	router.must("ip", "link", "set", "to1", "down")
	for _, p := range nodes[1].procs {
		_ = p.Process.Signal(syscall.SIGKILL)
	}
	router.spread(2, 3)
	revived := func(i int) int {
		n, _ := strconv.Atoi(metric(i, `rhumb_edge_revivals_total{result="ok",unit="rhumb-edge"}`))
		return n
	}
	soon(t, "its sessions go on at its neighbours", func() error {
		if n, all := revived(2)+revived(3), kept(2)+kept(3); n < own[1] || all != nodeDownloads {
			return fmt.Errorf("%d of %d are revived, of %d sessions there are records", n, own[1], all)
		}
		return nil
	})
	write(t, filepath.Join(client.dir, "go"), "")
	soon(t, "the downloads end", func() error {
		if left := results.left(); left > 0 {
			return fmt.Errorf("%d are under way", left)
		}
		return nil
	})
	results.check(t, fmt.Sprintf("%x", sha256.Sum256(content)))
	t.Logf("sessions were spread %v", own[1:])
	for _, i := range []int{2, 3} {
		if out := nodes[i].must(binary(t), "status"); !strings.Contains(out, "EdgeNodeSilent") || !strings.Contains(out, "ams1/n1") {
			t.Errorf("n%d does not say that n1 is silent:\n%s", i, out)
		}
	}
}

// nodesResults are files that the downloads end with: the status of curl and a hash.
type nodesResults []string

// nodesLoad begins downloads by curl, by both families, each of which stops after a megabyte
// until there is a file "go".
func nodesLoad(t *testing.T, client *machine, n int) nodesResults {
	t.Helper()
	urls := []string{"http://192.0.2.11/film.bin", "http://[2001:db8:53::11]/film.bin"}
	for _, url := range urls { // the first packet may come before its next hop is known
		soon(t, "the client reaches "+url, func() error {
			return client.command("curl", "-sgf", "--max-time", "2", "-r", "0-0", "-o", "/dev/null", url).Run()
		})
	}
	var out nodesResults
	for i := range n {
		url := urls[i%2]
		begun, result := filepath.Join(client.dir, fmt.Sprintf("begun%d", i)), filepath.Join(client.dir, fmt.Sprintf("result%d", i))
		script := fmt.Sprintf(`set -o pipefail
{ curl -sg --max-time 120 '%s' || echo "curl ends with $?" >%s.err; } | { head -c 1000000; touch %s; while [ -d %s ] && [ ! -e %s/go ]; do sleep .05; done; cat; } | sha256sum >%s.part
mv %s.part %s`, url, result, begun, client.dir, client.dir, result, result, result)
		cmd := client.start("bash", "-c", script)
		t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // the pipe's programs, too
		out = append(out, result)
		soon(t, fmt.Sprintf("download %d runs", i), func() error {
			_, err := os.Stat(begun)
			return err
		})
	}
	return out
}

// left counts those that have not ended.
func (r nodesResults) left() (n int) {
	for _, file := range r {
		if _, err := os.Stat(file); err != nil {
			n++
		}
	}
	return n
}

func (r nodesResults) check(t *testing.T, want string) {
	t.Helper()
	for i, file := range r {
		if b, err := os.ReadFile(file + ".err"); err == nil {
			t.Errorf("download %d: %s", i, b)
		}
		if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("download %d: %q (%v), want %s", i, b, err, want)
		}
	}
}
