//go:build e2e

package authdns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// The small internet of these tests, all on the loopback of one network
// namespace: a root, demo.test by anycast on two top addresses, and a low-level
// node at each of three sites.
const (
	rootAddr = "192.0.2.53"
	rootFile = `$TTL 86400
.	IN SOA root-servers.test. hostmaster.test. 1 7200 900 1209600 60
.	IN NS root-servers.test.
root-servers.test. IN A 192.0.2.53
demo.test. IN NS a.ns.demo.test.
demo.test. IN NS b.ns.demo.test.
a.ns.demo.test. IN A 192.0.2.1
b.ns.demo.test. IN A 192.0.2.2
www.else.test. IN CNAME host.else.test.
host.else.test. IN A 192.0.2.99
`
)

// internet is the running whole.
type internet struct {
	root  *Server
	nodes map[string]*Server // by site; ams1 and nyc1 hold the top addresses too
}

// isolate puts the calling goroutine's thread into a network namespace of its
// own, which ends with the test: sockets and processes made from here live there.
func isolate(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root, for a network namespace and port 53")
	}
	for _, tool := range []string{"ip", "nft", "unbound", "kresd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("needs %s (Debian: iproute2 nftables unbound knot-resolver): %v", tool, err)
		}
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	settle(t)
}

// settle gives the namespace that we are in the addresses of the small internet.
func settle(t *testing.T) {
	t.Helper()
	run(t, "ip", "link", "set", "lo", "up")
	for _, a := range []string{rootAddr, "192.0.2.1", "192.0.2.2", "198.51.100.9", "198.51.100.73", "198.51.100.137",
		euResolver, usResolver, elsewhere} {
		run(t, "ip", "addr", "add", a+"/32", "dev", "lo")
	}
	for _, a := range []string{"2001:db8:53::1", "2001:db8:a::9", "2001:db8:b::9", "2001:db8:c::9"} {
		run(t, "ip", "addr", "add", a+"/128", "dev", "lo", "nodad")
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func build(t *testing.T) *internet { return buildFor(t, plan{https: &web}) }

func buildFor(t *testing.T, p plan) *internet {
	t.Helper()
	isolate(t)
	snap := fleet(t, p)
	net := &internet{nodes: make(map[string]*Server)}
	net.root = start(t, Config{Workers: 1, Listeners: []Listener{loopback(top, rootAddr+":53")}})
	if errs := net.root.SetZones([]Source{{Zone: placement.Zone{Name: "."}, Data: []byte(rootFile)}}); errs != nil {
		t.Fatal(errs)
	}
	for site, listeners := range map[string][]Listener{
		"ams1": {loopback(top, "192.0.2.1:53"), loopback(top, "[2001:db8:53::1]:53"), loopback(low, "198.51.100.9:53"), loopback(low, "[2001:db8:a::9]:53")},
		"nyc1": {loopback(top, "192.0.2.2:53"), loopback(low, "198.51.100.73:53"), loopback(low, "[2001:db8:b::9]:53")},
		"tyo1": {loopback(low, "198.51.100.137:53"), loopback(low, "[2001:db8:c::9]:53")},
	} {
		s := start(t, Config{Workers: 1, Listeners: listeners})
		if errs := s.SetZones(sources()); errs != nil {
			t.Fatal(errs)
		}
		s.Apply(t.Context(), snap)
		net.nodes[site] = s
	}
	return net
}

// steered counts the steered queries which each site's node has had.
func (n *internet) steered() map[string]int64 {
	out := make(map[string]int64)
	for site, s := range n.nodes {
		_, answers := s.tallies.status(time.Now())
		for _, c := range answers {
			out[site] += c
		}
	}
	return out
}

// silenceSite lets everything to these addresses vanish, as a dead site does.
func silenceSite(t *testing.T, addrs ...string) {
	t.Helper()
	rules := "table inet dead {\n chain in {\n type filter hook input priority 0;\n"
	for _, a := range addrs {
		family := "ip"
		if strings.Contains(a, ":") {
			family = "ip6"
		}
		rules += fmt.Sprintf(" %s daddr %s drop\n", family, a)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules + " }\n}\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// resolver is a foreign resolver, running.
type resolver struct {
	name string
	addr netip.AddrPort
	log  *said
}

func spawn(t *testing.T, r *resolver, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", r.name, r.log)
		}
	})
	r.ready(t)
}

// ready waits until the resolver answers: its port opens some time after start.
func (r *resolver) ready(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if m, _, err := r.ask("www.demo.test.", dns.TypeA, 2*time.Second); err == nil && m.Rcode == dns.RcodeSuccess {
			return
		}
		time.Sleep(20 * time.Millisecond) // the only event there is: an answer
	}
	t.Fatalf("%s does not answer:\n%s", r.name, r.log)
}

func (r *resolver) ask(name string, qtype uint16, limit time.Duration) (*dns.Msg, time.Duration, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	start := time.Now()
	c, err := new(net.Dialer).DialContext(ctx, "udp", r.addr.String())
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	c.SetDeadline(start.Add(limit))
	conn := &dns.Conn{Conn: c, UDPSize: 4096}
	if err := conn.WriteMsg(m); err != nil {
		return nil, 0, err
	}
	reply, err := conn.ReadMsg()
	return reply, time.Since(start), err
}

// startUnbound starts Unbound with 0x20 mixing where caps says so. Mixing makes
// it take a time-out for a mangled reply and then compare the replies of all
// servers, the dead one included: some 10 s of its own making, so it is off
// where a server dies.
func startUnbound(t *testing.T, source string, caps bool) *resolver {
	t.Helper()
	dir := t.TempDir()
	r := &resolver{"unbound", netip.MustParseAddrPort("127.0.0.1:5301"), new(said)}
	write(t, filepath.Join(dir, "root.hints"), ". 3600000 NS root-servers.test.\nroot-servers.test. 3600000 A "+rootAddr+"\n")
	conf := filepath.Join(dir, "unbound.conf")
	write(t, conf, `server:
  interface: 127.0.0.1@5301
  outgoing-interface: `+source+`
  do-ip6: no
  access-control: 127.0.0.0/8 allow
  directory: "`+dir+`"
  root-hints: "`+dir+`/root.hints"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  local-zone: "test." nodefault
  qname-minimisation-strict: yes
  use-caps-for-id: `+map[bool]string{true: "yes", false: "no"}[caps]+`
  harden-referral-path: yes
  num-threads: 1
remote-control:
  control-enable: no
`)
	spawn(t, r, "unbound", "-d", "-c", conf)
	return r
}

// startKresd starts Knot Resolver, which mixes case by itself and without harm.
func startKresd(t *testing.T, source string, _ bool) *resolver {
	t.Helper()
	dir := t.TempDir()
	r := &resolver{"kresd", netip.MustParseAddrPort("127.0.0.1:5302"), new(said)}
	conf := filepath.Join(dir, "kresd.conf")
	write(t, conf, `net.listen('127.0.0.1', 5302, { kind = 'dns' })
net.ipv6 = false
net.outgoing_v4('`+source+`')
cache.size = 10 * MB
trust_anchors.remove('.')
modules.load('hints')
hints.root({ ['root-servers.test.'] = { '`+rootAddr+`' } })
policy.special_names = {}
`)
	spawn(t, r, "kresd", "-n", "-c", conf, dir)
	return r
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var resolvers = map[string]func(*testing.T, string, bool) *resolver{"unbound": startUnbound, "kresd": startKresd}

// addresses of a reply, sorted.
func addresses(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			out = append(out, a.A.String())
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// many asks n names that no cache holds, and returns how long the first and the
// slowest of the others took. Every answer must name a server of want.
func (r *resolver) many(t *testing.T, prefix string, n int, want string) (first, rest time.Duration) {
	t.Helper()
	for i := range n {
		m, took, err := r.ask(fmt.Sprintf("%s%d.any.cdn.demo.test.", prefix, i), dns.TypeA, 30*time.Second)
		if err != nil || m.Rcode != dns.RcodeSuccess {
			t.Fatalf("%s: query %d: %v %v", r.name, i, err, m)
		}
		if a := addresses(m); a == "" || !contains(want, a) {
			t.Fatalf("%s: query %d: answer %q, want of %q", r.name, i, a, want)
		}
		if i == 0 {
			first = took
		} else {
			rest = max(rest, took)
		}
	}
	return first, rest
}

func contains(all, some string) bool {
	for _, a := range strings.Fields(some) {
		if !slices.Contains(strings.Fields(all), a) {
			return false
		}
	}
	return true
}

const (
	webAMS = "198.51.100.10 198.51.100.11 198.51.100.12"
	webNYC = "198.51.100.74"
)

// TestResolversFollow: root → demo.test → cdn.demo.test, each resolver to the name
// servers of its own region, and on with them after it has learned the child's
// apex NS (R1), with the answer of its own region whichever server it asks (R4).
func TestResolversFollow(t *testing.T) {
	for name, start := range resolvers {
		for _, c := range []struct {
			source, web string
		}{{euResolver, webAMS}, {usResolver, webNYC}} {
			t.Run(name+"/"+c.source, func(t *testing.T) {
				world := build(t)
				r := start(t, c.source, true)
				r.many(t, "a", 20, c.web)
				m, _, err := r.ask("cdn.demo.test.", dns.TypeNS, 30*time.Second)
				if err != nil || len(m.Answer) != 2 {
					t.Fatalf("NS: %v %v", err, m)
				}
				for _, rr := range m.Answer {
					if ns := rr.(*dns.NS).Ns; !strings.EqualFold(ns, "ns-ams1.cdn.demo.test.") && !strings.EqualFold(ns, "ns-nyc1.cdn.demo.test.") {
						t.Errorf("R1: name server %s is not of the referral's set", ns)
					}
				}
				r.many(t, "b", 100, c.web)
				asked := world.steered()
				if asked["tyo1"] != 0 || asked["ams1"]+asked["nyc1"] < 120 {
					t.Errorf("R1: queries by site %v; want all 120 within the set", asked)
				}
				t.Logf("queries by site: %v", asked)
			})
		}
	}
}

// TestSiteDies: one site of the set falls silent, the near or the far one. The
// set holds a server outside its fate, so every query is answered, without
// SERVFAIL and with the answer of the client's own region (R2, R3, R4).
func TestSiteDies(t *testing.T) {
	for name, start := range resolvers {
		for _, c := range []struct {
			dead, alive string
			addrs       []string
		}{
			{"ams1", "nyc1", []string{"198.51.100.9", "2001:db8:a::9"}},
			{"nyc1", "ams1", []string{"198.51.100.73", "2001:db8:b::9"}},
		} {
			t.Run(name+"/"+c.dead, func(t *testing.T) {
				world := build(t)
				r := start(t, euResolver, false)
				r.many(t, "a", 30, webAMS)
				before := world.steered()
				silenceSite(t, c.addrs...)
				first, rest := r.many(t, "b", 60, webAMS)
				after := world.steered()
				if after[c.dead] != before[c.dead] || after[c.alive]-before[c.alive] < 60 {
					t.Errorf("queries by site %v, before %v; want all at %s", after, before, c.alive)
				}
				limit := 5 * time.Second
				if os.Getenv("RHUMB_SOAK") == "" { // a machine that may be busy
					limit *= 3
				}
				if first > limit || rest > limit {
					t.Errorf("first query %v, slowest after %v", first, rest)
				}
				t.Logf("first query %v, slowest of 59 after it %v", first, rest)
			})
		}
	}
}

// TestShapesThroughResolvers: an answer too large for UDP arrives by TCP, and each
// shape of answer is understood, asked in mixed case.
func TestShapesThroughResolvers(t *testing.T) {
	for name, start := range resolvers {
		t.Run(name, func(t *testing.T) {
			build(t)
			r := start(t, euResolver, true)
			m := exchange(t, "tcp", r.addr, ask(t, "many.demo.test. A", func(m *dns.Msg) { m.RecursionDesired = true }))
			if len(m.Answer) != 90 || m.Truncated {
				t.Fatalf("%d of 90 addresses arrived", len(m.Answer))
			}
			for _, c := range []struct {
				name  string
				rcode int
			}{{"nix.demo.test.", dns.RcodeNameError}, {"b.ent.demo.test.", dns.RcodeSuccess}, {"alias.cdn.demo.test.", dns.RcodeSuccess},
				{"a.old.demo.test.", dns.RcodeSuccess}, {"a.b.wild.demo.test.", dns.RcodeSuccess}} {
				if m, _, err := r.ask(c.name, dns.TypeA, 30*time.Second); err != nil || m.Rcode != c.rcode {
					t.Errorf("%s: %v %v", c.name, err, m)
				}
			}
			if m, _, err := r.ask("www.cdn.demo.test.", dns.TypeHTTPS, 30*time.Second); err != nil || len(m.Answer) != 1 ||
				!strings.Contains(m.Answer[0].String(), `1 . alpn="h2,h3" port="8443" ipv4hint="198.51.100.1`) {
				t.Errorf("RFC 9460: %v %v", err, m)
			}
		})
	}
}

// TestElsewhereThroughResolvers: RFC 1034 section 3.6.2, a name that is an alias of
// others' for some clients and has addresses for the rest is both to resolvers, each in
// its place, whichever type they were asked for first.
func TestElsewhereThroughResolvers(t *testing.T) {
	for name, start := range resolvers {
		for _, c := range []struct{ source, want string }{{usResolver, "www.demo.test. 192.0.2.10"}, {euResolver, webAMS}} {
			t.Run(name+"/"+c.source, func(t *testing.T) {
				buildFor(t, plan{elsewhere: "www.demo.test."})
				r := start(t, c.source, false)
				for _, qtype := range []uint16{dns.TypeTXT, dns.TypeA, dns.TypeMX, dns.TypeA} {
					m, _, err := r.ask("www.cdn.demo.test.", qtype, 30*time.Second)
					if err != nil || m.Rcode != dns.RcodeSuccess {
						t.Fatalf("%v %v", err, m)
					}
					var got []string
					for _, rr := range m.Answer {
						got = append(got, dns.Field(rr, 1))
					}
					if qtype == dns.TypeA && (len(got) != 2 || !contains(c.want, strings.Join(got, " "))) || qtype != dns.TypeA && len(got) > 1 {
						t.Errorf("%s: %q, want of %q", dns.Type(qtype), got, c.want)
					}
				}
			})
		}
	}
}

// hints are the IPv4 addresses of a binding.
func hints(rr dns.RR) string {
	if b := svcbOf(rr); b != nil {
		for _, v := range b.Value {
			if v.Key() == dns.SVCB_IPV4HINT {
				return strings.ReplaceAll(v.String(), ",", " ")
			}
		}
	}
	return "none"
}

// TestAliasesThroughResolvers: an apex that is an alias of a steered name leads each client
// to its region; and real resolvers tell what the names of others have.
func TestAliasesThroughResolvers(t *testing.T) {
	for name, start := range resolvers {
		t.Run(name, func(t *testing.T) {
			world := build(t)
			r := start(t, euResolver, false)
			src := sources()
			src[0].Zone.Aliases = []placement.Alias{{Name: "demo.test.", Target: "www.cdn.demo.test."}, {Name: "spoken.demo.test.", Target: "x.any.cdn.demo.test."}}
			for _, s := range world.nodes {
				if errs := s.SetZones(src); errs != nil {
					t.Fatal(errs)
				}
			}
			m, _, err := r.ask("demo.test.", dns.TypeA, 30*time.Second)
			if err != nil || addresses(m) == "" || !contains(webAMS, addresses(m)) {
				t.Errorf("apex: %v %v, want of %s", err, m, webAMS)
			}
			m, _, err = r.ask("spoken.demo.test.", dns.TypeHTTPS, 30*time.Second)
			if err != nil || len(m.Answer) != 1 || !contains(webAMS, hints(m.Answer[0])) {
				t.Errorf("HTTPS of an alias: %v %v, want hints of %s", err, m, webAMS)
			}
			o := newOutside([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), r.addr}, time.Now, slog.New(slog.DiscardHandler), "")
			for qtype, want := range map[uint16]string{dns.TypeA: "[192.0.2.99]", dns.TypeAAAA: "[]"} { // this thread alone is in the namespace
				addrs, ttl, err := o.lookup(t.Context(), "www.else.test.", qtype)
				if err != nil || fmt.Sprint(addrs) != want || ttl == 0 || ttl > outsideMaxTTL {
					t.Errorf("%s: %v for %d s, want %s: %v", dns.Type(qtype), addrs, ttl, want, err)
				}
			}
		})
	}
}
