//go:build e2e

package authdns

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/placement"
)

// The addresses of a signed internet beside those of the unsigned one.
const (
	tldAddr      = "192.0.2.54"
	childrenAddr = "192.0.2.55"
	lateAddr     = "192.0.2.56" // whose clock is a month slow
)

// dsLines writes what the parent's file says of a child's keys.
func dsLines(t *testing.T, keys []*dnssec.Key) (out string) {
	t.Helper()
	r, err := dnssec.NewRing(keys[0].Zone(), keys, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, ds := range r.DS(300) {
		out += ds.String() + "\n"
	}
	return out
}

// buildSigned makes root, test, demo.test and cdn.demo.test, all signed; below
// demo.test an unsigned zone, one with another key than its parent says, and one that
// is signed by a server whose clock is a month slow. It returns the root's key.
func buildSigned(t *testing.T) *dns.DNSKEY {
	t.Helper()
	isolate(t)
	for _, a := range []string{tldAddr, childrenAddr, lateAddr} {
		run(t, "ip", "addr", "add", a+"/32", "dev", "lo")
	}
	const apex = "@ SOA ns hostmaster 1 7200 900 1209600 60\n@ NS ns\n"
	keys := map[string][]*dnssec.Key{}
	for i, name := range []string{".", "test.", "demo.test.", "cdn.demo.test.", "bad.demo.test.", "late.demo.test.", "other.demo.test."} {
		keys[name] = keysOf(t, name, i%3 == 0)
	}
	serve := func(now func() time.Time, addr string, zones ...Source) {
		s := start(t, Config{Workers: 1, Now: now, Listeners: []Listener{loopback(top, addr+":53")}})
		if errs := s.SetZones(zones); errs != nil {
			t.Fatal(errs)
		}
	}
	serve(nil, rootAddr, signedSource(".", keys["."], "@ SOA root-servers.net. hostmaster.test. 1 7200 900 1209600 60\n@ NS root-servers.net.\nroot-servers.net. A "+rootAddr+"\n"+
		"test. NS ns.test.\nns.test. A "+tldAddr+"\n"+dsLines(t, keys["test."])))
	serve(nil, tldAddr, signedSource("test.", keys["test."], apex+"ns A "+tldAddr+"\ndemo NS a.ns.demo\ndemo NS b.ns.demo\na.ns.demo A 192.0.2.1\nb.ns.demo A 192.0.2.2\n"+dsLines(t, keys["demo.test."])))
	children := "ns A " + childrenAddr + "\nwww A 192.0.2.99\n"
	serve(nil, childrenAddr, signedSource("open.demo.test.", nil, apex+children), signedSource("bad.demo.test.", keys["bad.demo.test."], apex+children))
	serve(func() time.Time { return time.Now().AddDate(0, -1, 0) }, lateAddr,
		signedSource("late.demo.test.", keys["late.demo.test."], apex+"ns A "+lateAddr+"\nwww A 192.0.2.99\n"))

	cuts := "\n$ORIGIN demo.test.\n" + dsLines(t, keys["late.demo.test."]) + strings.ReplaceAll(dsLines(t, keys["other.demo.test."]), "other.demo", "bad.demo")
	for name, addr := range map[string]string{"open": childrenAddr, "bad": childrenAddr, "late": lateAddr} {
		cuts += fmt.Sprintf("%s NS ns.%s\nns.%s A %s\n", name, name, name, addr)
	}
	src := sources()
	src[0].Data = append(src[0].Data, cuts...)
	for i := range src {
		src[i].Zone.DNSSEC, src[i].Keys = placement.Online, keys[src[i].Zone.Name]
	}
	snap := fleet(t, plan{https: &web})
	for site, listeners := range map[string][]Listener{
		"ams1": {loopback(top, "192.0.2.1:53"), loopback(low, "198.51.100.9:53")},
		"nyc1": {loopback(top, "192.0.2.2:53"), loopback(low, "198.51.100.73:53")},
		"tyo1": {loopback(low, "198.51.100.137:53")},
	} {
		s := start(t, Config{Site: site, Workers: 1, Listeners: listeners})
		if errs := s.SetZones(src); errs != nil {
			t.Fatal(errs)
		}
		s.Apply(t.Context(), snap)
	}
	return keys["."][0].Public
}

// validators start a resolver that believes the root's key alone, with more lines of
// its own configuration.
var validators = map[string]func(t *testing.T, dir string, more ...string) *resolver{"unbound": validatingUnbound, "kresd": validatingKresd}

func validatingUnbound(t *testing.T, dir string, more ...string) *resolver {
	r := &resolver{"unbound", netip.MustParseAddrPort("127.0.0.1:5301"), new(said)}
	write(t, filepath.Join(dir, "root.hints"), ". 3600000 NS root-servers.net.\nroot-servers.net. 3600000 A "+rootAddr+"\n")
	conf := filepath.Join(dir, "unbound.conf")
	write(t, conf, `server:
  interface: 127.0.0.1@5301
  outgoing-interface: `+euResolver+`
  do-ip6: no
  access-control: 127.0.0.0/8 allow
  directory: "`+dir+`"
  root-hints: "`+dir+`/root.hints"
  trust-anchor-file: "`+dir+`/root.key"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  module-config: "validator iterator"
  do-not-query-localhost: no
  local-zone: "test." nodefault
  qname-minimisation-strict: yes
  use-caps-for-id: yes
  aggressive-nsec: yes
  harden-referral-path: yes
  val-log-level: 2
  num-threads: 1
`+strings.Join(more, "\n")+`
remote-control:
  control-enable: no
`)
	spawn(t, r, "unbound", "-d", "-c", conf)
	return r
}

func validatingKresd(t *testing.T, dir string, more ...string) *resolver {
	r := &resolver{"kresd", netip.MustParseAddrPort("127.0.0.1:5302"), new(said)}
	conf := filepath.Join(dir, "kresd.conf")
	write(t, conf, `net.listen('127.0.0.1', 5302, { kind = 'dns' })
net.ipv6 = false
net.outgoing_v4('`+euResolver+`')
cache.size = 10 * MB
trust_anchors.add_file('`+dir+`/root.key', true)
modules.load('hints')
hints.root({ ['root-servers.net.'] = { '`+rootAddr+`' } })
policy.special_names = {}
`+strings.Join(more, "\n")+"\n")
	spawn(t, r, "kresd", "-n", "-c", conf, dir)
	return r
}

// shapes are asked of every validator, in this order: what it learned of one name may
// stand in for the answer to another (RFC 8198).
var shapes = []struct {
	what, question, want string // RCODE, whether believed, records in the answer
}{
	{"positive", "www.demo.test. A", "NOERROR secure 1"},
	{"NODATA", "www.demo.test. MX", "NOERROR secure 0"},
	{"a name that does not exist", "nix.demo.test. A", "NOERROR secure 0"},
	{"and one below it", "a.nix.demo.test. AAAA", "NOERROR secure 0"},
	{"empty non-terminal", "b.ent.demo.test. A", "NOERROR secure 0"},
	{"a name below it", "a.b.ent.demo.test. A", "NOERROR secure 1"},
	{"wildcard", "a.b.wild.demo.test. A", "NOERROR secure 1"},
	{"NODATA of a wildcard", "a.wild.demo.test. MX", "NOERROR secure 0"},
	{"CNAME at a wildcard", "x.cw.demo.test. A", "NOERROR secure 2"},
	{"an alias to nothing", "dangling.demo.test. A", "NOERROR secure 1"},
	{"DNAME", "a.old.demo.test. A", "NOERROR secure 3"},
	{"too large for UDP", "many.demo.test. A", "NOERROR secure 90"},
	{"DS of a steered cut", "cdn.demo.test. DS", "NOERROR secure 1"},
	{"steered", "www.cdn.demo.test. A", "NOERROR secure 2"},
	{"steered, IPv6", "www.cdn.demo.test. AAAA", "NOERROR secure 1"},
	{"NODATA at a steered name", "www.cdn.demo.test. MX", "NOERROR secure 0"},
	{"after it", "www.cdn.demo.test. A", "NOERROR secure 2"},
	{"steered, bindings", "www.cdn.demo.test. HTTPS", "NOERROR secure 1"},
	{"bindings of a steered wildcard", "y.any.cdn.demo.test. HTTPS", "NOERROR secure 1"},
	{"NODATA beside bindings", "www.cdn.demo.test. SVCB", "NOERROR secure 0"},
	{"steered at the apex", "cdn.demo.test. A", "NOERROR secure 2"},
	{"steered wildcard", "x.any.cdn.demo.test. A", "NOERROR secure 2"},
	{"alias to a steered name", "alias.cdn.demo.test. A", "NOERROR secure 3"},
	{"alias across the cut", "todyn.demo.test. A", "NOERROR secure 3"},
	{"apex NS chosen for the resolver", "cdn.demo.test. NS", "NOERROR secure 2"},
	{"a name server", "ns-ams1.cdn.demo.test. A", "NOERROR secure 1"},
	{"nothing below the steered zone", "nix.cdn.demo.test. A", "NOERROR secure 0"},
	{"CDS", "demo.test. CDS", "NOERROR secure 1"},
	{"DNSKEY", "demo.test. DNSKEY", "NOERROR secure 2"},
	{"insecure delegation", "www.open.demo.test. A", "NOERROR insecure 1"},
	{"nothing below it", "nix.open.demo.test. A", "NXDOMAIN insecure 0"},
	{"another key than the parent says", "www.bad.demo.test. A", "SERVFAIL insecure 0"},
	{"signatures of last month", "www.late.demo.test. A", "SERVFAIL insecure 0"},
}

// TestValidators: Unbound, kresd and delv believe every shape of answer, and none
// of what is forged or late.
func TestValidators(t *testing.T) {
	for name, start := range validators {
		t.Run(name, func(t *testing.T) {
			root, dir := buildSigned(t), t.TempDir()
			write(t, filepath.Join(dir, "root.key"), root.String()+"\n")
			r := start(t, dir)
			for _, c := range shapes {
				if got := r.verdict(t, c.question); got != c.want {
					t.Errorf("%s: %s: %s, want %s", c.what, c.question, got, c.want)
				}
			}
			delve(t, r, root, dir)
		})
	}
}

// verdict asks with DO over TCP, where nothing is cut short, and says what a client
// learns: RCODE, AD, and how many records the answer has besides signatures.
func (r *resolver) verdict(t *testing.T, question string) string {
	t.Helper()
	name, qtype, _ := strings.Cut(question, " ")
	m := new(dns.Msg)
	m.SetQuestion(name, dns.StringToType[qtype])
	m.SetEdns0(4096, true)
	c := dns.Client{Net: "tcp", Timeout: 20 * time.Second}
	reply, _, err := c.Exchange(m, r.addr.String())
	if err != nil {
		return err.Error()
	}
	believed, n := "insecure", 0
	if reply.AuthenticatedData {
		believed = "secure"
	}
	for _, rr := range reply.Answer {
		if rr.Header().Rrtype != dns.TypeRRSIG {
			n++
		}
	}
	return fmt.Sprintf("%s %s %d", rcodeLabel(reply.Rcode), believed, n)
}

// delve lets delv validate, which asks the resolver for everything on the way.
func delve(t *testing.T, r *resolver, root *dns.DNSKEY, dir string) {
	t.Helper()
	anchors := anchorsOf(t, root, dir)
	for _, c := range []struct{ name, qtype, want string }{
		{"www.demo.test.", "A", "; fully validated"}, {"a.b.wild.demo.test.", "A", "; fully validated"}, {"www.cdn.demo.test.", "A", "; fully validated"},
		{"nix.demo.test.", "A", "; negative response, fully validated"}, {"www.open.demo.test.", "A", "; unsigned answer"}, {"www.bad.demo.test.", "A", "resolution failed"},
	} {
		out, _ := exec.Command("delv", "@127.0.0.1", "-p", fmt.Sprint(r.addr.Port()), "-a", anchors, "+root=.", c.name, c.qtype).CombinedOutput()
		if !strings.Contains(string(out), c.want) {
			t.Errorf("delv %s %s: want %q, it said:\n%s", c.name, c.qtype, c.want, out)
		}
	}
}

// anchorsOf writes the root's key as delv wants it.
func anchorsOf(t *testing.T, root *dns.DNSKEY, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "anchors")
	write(t, path, fmt.Sprintf("trust-anchors { . static-key %d %d %d %q; };\n", root.Flags, root.Protocol, root.Algorithm, root.PublicKey))
	return path
}
