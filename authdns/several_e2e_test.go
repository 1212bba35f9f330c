//go:build e2e

package authdns

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// TestSeveralThroughResolvers: whichever resolver asks whichever node, clients of one block
// get the same clusters, the nearest first.
func TestSeveralThroughResolvers(t *testing.T) {
	answers := placement.Answers{Nearest: 1, Random: 1}
	told := map[string]string{}
	for name, start := range resolvers {
		t.Run(name, func(t *testing.T) {
			world := buildFor(t, plan{answers: answers})
			r := start(t, euResolver, false)
			m, _, err := r.ask("www.cdn.demo.test.", dns.TypeA, 30*time.Second)
			if err != nil || len(m.Answer) != 2 {
				t.Fatalf("%v %v", err, m)
			}
			near, other := 0, 0
			for _, rr := range m.Answer {
				if a := rr.(*dns.A).A.String(); contains(webAMS, a) {
					near++
				} else {
					other++
				}
			}
			if near != 1 || other != 1 {
				t.Errorf("%v, want one of ams1 and one of another site", m.Answer)
			}
			told[name] = addresses(m)
			for site, s := range world.nodes {
				d := unpack(t, s.Ask(ask(t, "www.cdn.demo.test. A"), netip.MustParseAddrPort(euResolver+":53"), low, false).Data)
				if addresses(d) != told[name] {
					t.Errorf("%s says %s, %s was told %s", site, addresses(d), name, told[name])
				}
			}
		})
	}
	if told["unbound"] != told["kresd"] {
		t.Errorf("resolvers beside each other were told different things: %v", told)
	}
}

// TestSeveralScopeInCache (RFC 7871, 7.3.1): a resolver that passes client subnets on keeps
// an answer for the block for which it was drawn, and for no one else.
func TestSeveralScopeInCache(t *testing.T) {
	world := buildFor(t, plan{answers: placement.Answers{Nearest: 1, Random: 1}})
	r := startSubnetUnbound(t, usResolver)
	answer := func(client string) string {
		m := new(dns.Msg)
		m.SetQuestion("www.cdn.demo.test.", dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, ecs(client))
		c, err := net.Dial("udp", r.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		conn := &dns.Conn{Conn: c, UDPSize: 4096}
		if err := conn.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		reply, err := conn.ReadMsg()
		if err != nil || len(reply.Answer) != 2 {
			t.Fatalf("%s: %v %v", client, err, reply)
		}
		return addresses(reply)
	}
	total := func() (n int64) {
		for _, c := range world.steered() {
			n += c
		}
		return n
	}
	seen := map[string]bool{}
	for i := range 12 {
		first := answer(fmt.Sprintf("10.%d.16.0/24", i))
		asked := total()
		if again := answer(fmt.Sprintf("10.%d.31.0/24", i)); again != first {
			t.Errorf("block %d: %s at its begin, %s at its end", i, first, again)
		}
		if total() != asked {
			t.Errorf("block %d: the resolver asked again within the scope", i)
		}
		m := unpack(t, world.nodes["nyc1"].Ask(ask(t, "www.cdn.demo.test. A", edns0(ecs(fmt.Sprintf("10.%d.24.0/24", i)))), netip.MustParseAddrPort(usResolver+":53"), low, false).Data)
		if addresses(m) != first {
			t.Errorf("block %d: the resolver says %s, the node %s", i, first, addresses(m))
		}
		seen[first] = true
	}
	if len(seen) < 2 {
		t.Errorf("all blocks got %v", seen)
	}
}

// startSubnetUnbound starts Unbound with its module for client subnets, which it sends to
// all sites.
func startSubnetUnbound(t *testing.T, source string) *resolver {
	t.Helper()
	dir := t.TempDir()
	r := &resolver{"unbound", netip.MustParseAddrPort("127.0.0.1:5303"), new(said)}
	write(t, filepath.Join(dir, "root.hints"), ". 3600000 NS root-servers.test.\nroot-servers.test. 3600000 A "+rootAddr+"\n")
	conf := filepath.Join(dir, "unbound.conf")
	write(t, conf, strings.NewReplacer("DIR", dir, "SOURCE", source).Replace(`server:
  interface: 127.0.0.1@5303
  outgoing-interface: SOURCE
  do-ip6: no
  access-control: 127.0.0.0/8 allow
  directory: "DIR"
  root-hints: "DIR/root.hints"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  module-config: "subnetcache iterator"
  send-client-subnet: 198.51.100.0/24
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: 24
  do-not-query-localhost: no
  local-zone: "test." nodefault
  num-threads: 1
remote-control:
  control-enable: no
`))
	spawn(t, r, "unbound", "-d", "-c", conf)
	return r
}
