//go:build e2e

package bgp

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhumb/placement"
)

// beside is a host with rhumb and a daemon that owns port 179, and what is seen
// of its routes at a router across the link.
type beside struct {
	*lab
	t       *testing.T
	host    string
	number  int
	rhumb   *process
	config  helperConfig
	router  *process // a GoBGP which takes everything and prints it
	path    int      // length of the AS path when plain
	prepend int      // added from prepend on
	med     uint32   // from prepend on
}

// TestEnginesBesideDaemons plays one scenario over both engines and both
// daemons, on one host each, all before one router.
func TestEnginesBesideDaemons(t *testing.T) {
	l := newLab(t)
	l.host("router", 2)
	home := netip.MustParseAddr("127.0.0.1")
	cases := []struct {
		name, host string
		number     int
		daemon     func(*lab, string, int)
		engine     func(helperConfig) helperConfig
		path       int
		prepend    int
		med        uint32
		at         netip.Addr // where the daemon is dialled; FRR knows no 127.0.0.1
	}{
		{"kernel and BIRD", "kb", 21, birdBesideKernel, kernelBeside, 1, 3, 500, home},
		{"kernel and FRR", "kf", 22, frrBesideKernel, kernelBeside, 1, 3, 500, addr4(22)},
		// The MED ends at the daemon (RFC 4271 section 5.1.4), and the path is
		// longer by the AS of the speaker behind it.
		{"gobgp and BIRD", "gb", 23, birdBesideSpeaker, speakerBeside, 2, 2, 0, home},
		{"gobgp and FRR", "gf", 24, frrBesideSpeaker, speakerBeside, 2, 2, 0, addr4(24)},
	}
	routerConfig := helperConfig{Role: "engine", ASN: 64501, RouterID: addr4(2), NextHop6: addr6(2), Site: 9}
	for _, c := range cases {
		routerConfig.Peers = append(routerConfig.Peers, Peer{Address: addr4(c.number), ASN: 64500, Passive: true})
	}
	router := l.helper("router", routerConfig)
	router.expect(0, "ready")
	for _, c := range cases {
		l.host(c.host, c.number)
		c.daemon(l, c.host, c.number)
	}
	for _, c := range cases {
		router.expect(0, "peer "+addr4(c.number).String()+" established")
	}
	router.tell("announce " + net4) // what another site's route looks like: the witness
	t.Run("all", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				b := &beside{lab: l, t: t, host: c.host, number: c.number, router: router, path: c.path, prepend: c.prepend, med: c.med,
					config: c.engine(besideConfig(l, c.host, c.number, c.at))}
				b.scenario()
				if b.config.Kernel != nil {
					b.dies()
				}
			})
		}
	})
}

// besideConfig is a speaker which has two prefixes and asks for a witness.
func besideConfig(l *lab, host string, number int, daemon netip.Addr) helperConfig {
	return helperConfig{Role: "speaker", ASN: 64500, RouterID: addr4(number + 100), Site: 1, Port: NoListener, Slots: true,
		Prefixes: []placement.Prefix{
			{Prefix: netip.MustParsePrefix(net4), Slots: 1, Prepend: 2, MED: 50, Witness: placement.WitnessRequired},
			{Prefix: netip.MustParsePrefix(net6), Slots: 1, Prepend: 2, MED: 50},
		},
		VIPs:   []netip.Addr{vip, netip.MustParseAddr("2001:db8:53::53")},
		Kernel: &KernelConfig{Pulse: filepath.Join(l.dir, host+".pulse")},
		Peers: []Peer{{Address: daemon, Local: netip.MustParseAddr("127.0.0.2"),
			ASN: 64500, AllPaths: true}}}
}

func kernelBeside(c helperConfig) helperConfig { return c }

func speakerBeside(c helperConfig) helperConfig {
	c.Kernel = nil
	c.ASN, c.MarkerASN = 64511, 64500
	c.NextHop4, c.NextHop6 = netip.MustParseAddr("198.51.100.254"), netip.MustParseAddr("2001:db8:1::254")
	c.Peers[0].Multihop = 2
	return c
}

// routerOf is the daemon's session with the router, for BIRD.
func routerOf(number int, export4, export6 string) string {
	return fmt.Sprintf(`
protocol bgp up { local %s as 64500; neighbor 198.51.100.2 as 64501; hold time 9; connect delay time 1; connect retry time 1;
  error wait time 1, 2; ipv4 { import all; export %s; next hop self; }; ipv6 { import all; export %s; next hop self; }; }
`, addr4(number), export4, export6)
}

func birdBesideKernel(l *lab, host string, number int) {
	l.birdOf(host, `router id `+addr4(number).String()+`;
include "`+shipped(l.t, "bird/rhumb-kernel.conf")+`";
protocol direct { ipv4; ipv6; }
protocol kernel { learn; ipv4 { import filter rhumb_kernel4; export where source = RTS_BGP; }; }
protocol kernel { learn; ipv6 { import filter rhumb_kernel6; export where source = RTS_BGP; }; }
protocol bgp rhumb from rhumb_reader {}
`+routerOf(number, "filter rhumb_out4", "filter rhumb_out6"))
}

func birdBesideSpeaker(l *lab, host string, number int) {
	l.birdOf(host, `router id `+addr4(number).String()+`;
protocol direct { ipv4; ipv6; }
protocol bgp rhumb { local 127.0.0.1 as 64500; neighbor 127.0.0.2 as 64511; multihop 2; passive on; hold time 9;
  ipv4 { import filter { preference = 200; accept; }; export where proto = "up"; add paths tx; };
  ipv6 { import filter { preference = 200; accept; }; export where proto = "up"; add paths tx; next hop address 2001:db8:1::2; }; }
`+routerOf(number, `where proto = "rhumb"`, `where proto = "rhumb"`))
}

// frrBesideKernel is the shipped file with this host's address, without what
// goes with a password.
func frrBesideKernel(l *lab, host string, number int) {
	b, err := os.ReadFile(shipped(l.t, "frr/rhumb-kernel.conf"))
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		if !strings.Contains(line, "password") && !strings.Contains(line, "ttl-security") {
			out = append(out, strings.ReplaceAll(line, "router-id 198.51.100.1", "router-id "+addr4(number).String()))
		}
	}
	l.frr(host, strings.Join(out, "\n"))
}

func frrBesideSpeaker(l *lab, host string, number int) {
	af := `
  neighbor 198.51.100.2 activate
  neighbor 198.51.100.2 next-hop-self
  neighbor 198.51.100.2 route-map OUT out
  neighbor 198.51.100.2 route-map IN in
  neighbor 127.0.0.2 activate
  neighbor 127.0.0.2 addpath-tx-all-paths
  neighbor 127.0.0.2 route-map PREFER in
  neighbor 127.0.0.2 route-map MARKERS out
 exit-address-family
`
	l.frr(host, `bgp as-path access-list RHUMB seq 5 permit ^64511
bgp large-community-list expanded MARKER seq 5 permit ^64500:1:[0-9]+$
route-map IN permit 10
route-map PREFER permit 10
 set weight 1000
route-map OUT permit 10
 match as-path RHUMB
route-map MARKERS permit 10
 match large-community MARKER
router bgp 64500
 bgp router-id `+addr4(number).String()+`
 no bgp default ipv4-unicast
 neighbor 198.51.100.2 remote-as 64501
 neighbor 198.51.100.2 timers 3 9
 neighbor 198.51.100.2 timers connect 1
 neighbor 127.0.0.2 remote-as 64511
 neighbor 127.0.0.2 ebgp-multihop 2
 neighbor 127.0.0.2 passive
 neighbor 127.0.0.2 timers 3 9
 address-family ipv4 unicast`+af+` address-family ipv6 unicast`+af)
}

// seen waits until the router was told a step of a prefix, and returns when.
func (b *beside) seen(from int, prefix string, step placement.Step) time.Time {
	b.t.Helper()
	words := []string{"learned " + addr4(b.number).String() + " " + prefix + " "}
	if step == placement.Withdrawn {
		return b.router.expectIn(b.t, from, append(words, prefix+" true")...)
	}
	path, med := b.path, uint32(0)
	if step >= placement.Prepend {
		path, med = path+b.prepend, b.med
	}
	return b.router.expectIn(b.t, from, append(words, prefix+" false [[64500 1 1]] "+fmt.Sprint(step == placement.GShut),
		fmt.Sprintf("path=%d med=%d noexport=false.", path, med))...)
}

// scenario goes down and up the whole ladder while the daemon's session stays.
func (b *beside) scenario() {
	b.t.Helper()
	began := b.router.mark()
	b.start()
	b.go1(placement.Announce)
	for _, step := range []placement.Step{placement.Prepend, placement.GShut, placement.Withdrawn, placement.Announce} {
		b.go1(step)
	}
	b.rhumb.expect(0, "event "+net4+" gshut withdrawn", "witness=true")
	if out := b.ip("netns", "exec", b.ns(b.host), "ss", "-Hltnp", "sport = :179"); strings.Contains(out, "bgp.test") || !strings.Contains(out, ":179") {
		b.t.Errorf("port 179 is not the daemon's alone:\n%s", out)
	}
	if down := fibLines(b.router, began, "peer "+addr4(b.number).String()); len(down) > 0 {
		b.t.Errorf("the daemon's session went: %v", down)
	}
}

// start starts rhumb and waits until it hears the daemon.
func (b *beside) start() {
	b.t.Helper()
	p := *b.lab // processes of a subtest end with it
	p.t = b.t
	b.rhumb = p.helper(b.host, b.config)
	b.rhumb.expect(0, "ready")
}

// go1 asks for a step and waits until the router has seen it in both families.
func (b *beside) go1(step placement.Step) {
	b.t.Helper()
	from := b.router.mark()
	cmd := step.String() + " intent"
	if step == placement.Announce {
		cmd = step.String()
	}
	at := b.rhumb.tell(cmd)
	t4, t6 := b.seen(from, net4, step), b.seen(from, net6, step)
	b.t.Logf("%s: seen after %v (IPv4), %v (IPv6)", step, t4.Sub(at).Round(time.Millisecond), t6.Sub(at).Round(time.Millisecond))
}

// dies kills rhumb: the routes stay, the watchdog moves them to gshut, a new
// process takes them over, and a clean exit leaves them as well.
func (b *beside) dies() {
	b.t.Helper()
	began := b.router.mark()
	p := *b.lab
	p.t = b.t
	dog := p.helper(b.host, helperConfig{Role: "watchdog", Kernel: b.config.Kernel, After: 2500 * time.Millisecond})
	dog.expect(0, "ready")
	at := b.rhumb.signal(syscall.SIGKILL)
	b.t.Logf("SIGKILL to gshut at the router: %v", b.seen(began, net4, placement.GShut).Sub(at).Round(time.Millisecond))
	b.seen(began, net6, placement.GShut)

	from := b.router.mark()
	b.start()
	b.go1(placement.Announce)
	b.seen(from, net4, placement.Announce)
	from = b.router.mark() // before its end: what the watchdog does comes after that
	b.rhumb.signal(syscall.SIGTERM)
	<-b.rhumb.done
	b.seen(from, net4, placement.GShut)
	b.seen(from, net6, placement.GShut)
	for _, prefix := range []string{net4, net6} {
		if gone := fibLines(b.router, began, "learned "+addr4(b.number).String()+" "+prefix+" true"); len(gone) > 0 {
			b.t.Errorf("the route went: %v", gone)
		}
		if routes := b.routes(b.host, prefix); !strings.Contains(routes, "metric 300") {
			b.t.Errorf("left in the kernel: %q, want it at 300", routes)
		}
	}
}
