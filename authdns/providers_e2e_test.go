//go:build e2e

package authdns

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/placement"
)

// secondProvider makes Knot sign a zone with keys of its own, beside which it publishes
// those that were imported.
const secondProvider = `server:
    listen: 192.0.2.2@53
    rundir: "%[1]s"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "STORAGE"
policy:
  - id: own
    manual: on
    algorithm: ecdsap256sha256
    dnskey-ttl: 3600
    cds-cdnskey-publish: none
zone:
  - domain: demo.test
    storage: "STORAGE"
    file: demo.test.zone
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    dnssec-signing: on
    dnssec-policy: own
`

// providers is one zone at two of them, us and Knot, below a signed root.
type providers struct {
	root *dns.DNSKEY
	ours *Server
	keys []*dnssec.Key // ours
	// ksk and zsk are Knot's.
	ksk, zsk placement.OtherKey
}

// tellers is how many names of the zone tell who answered: enough for a resolver that
// tries the slower one of two servers now and then only.
const tellers = 600

// atBoth is the zone as one of them has it: the same names, of which some tell who it is.
func atBoth(who string) string {
	text := "@ SOA a.ns hostmaster 1 14400 3600 1209600 60\n@ NS a.ns\n@ NS b.ns\na.ns A 192.0.2.1\nb.ns A 192.0.2.2\nwww A 192.0.2.10\n"
	for i := range tellers {
		text += fmt.Sprintf("w%d TXT %s\n", i, who)
	}
	return text
}

// keymgr runs Knot's tool for the keys of demo.test.
func keymgr(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.Command("keymgr", append([]string{"-D", filepath.Join(dir, "keys"), "demo.test"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("keymgr %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// knotKey makes a key at Knot, and reads what it publishes of it.
func knotKey(t *testing.T, dir, role string) placement.OtherKey {
	t.Helper()
	id := keymgr(t, dir, "generate", "algorithm=ecdsap256sha256", role+"=yes")
	rr, err := dns.NewRR(keymgr(t, dir, "dnskey", id))
	if err != nil {
		t.Fatal(err)
	}
	k := rr.(*dns.DNSKEY)
	return placement.OtherKey{Name: "knot-" + role, Flags: k.Flags, Algorithm: k.Algorithm, Public: k.PublicKey, CDS: role == "ksk"}
}

// buildProviders starts them; told says whether each publishes the other's keys.
func buildProviders(t *testing.T, told bool) *providers {
	t.Helper()
	isolate(t)
	run(t, "ip", "addr", "add", tldAddr+"/32", "dev", "lo")
	dir := t.TempDir()
	p := &providers{keys: keysOf(t, "demo.test.", false), ksk: knotKey(t, dir, "ksk"), zsk: knotKey(t, dir, "zsk")}
	write(t, filepath.Join(dir, "demo.test.zone"), "$ORIGIN demo.test.\n$TTL 300\n"+atBoth("knot"))
	src := signedSource("demo.test.", p.keys, atBoth("rhumb"))
	if told {
		src.Zone.OtherKeys = []placement.OtherKey{p.ksk, p.zsk}
		for i, rr := range dnssec.Export(p.keys, dnssec.HourOf(time.Now())) {
			file := filepath.Join(dir, fmt.Sprintf("Kdemo.test.+013+%05d.key", i))
			write(t, file, rr.String()+"\n")
			keymgr(t, dir, "import-pub", file)
		}
	}
	knot := startPeer(t, "second provider", "192.0.2.2:53", strings.ReplaceAll(secondProvider, "STORAGE", dir), "knotd", "-c")
	p.ours = start(t, Config{Workers: 1, Listeners: []Listener{loopback(top, "192.0.2.1:53")}})
	if errs := p.ours.SetZones([]Source{src}); errs != nil {
		t.Fatal(errs)
	}
	until(t, "Knot is up", func() (bool, string) { n := knot.serial("demo.test."); return n != 0, knot.log.String() })
	theirs := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "demo.test.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: p.ksk.Flags, Protocol: 3, Algorithm: p.ksk.Algorithm, PublicKey: p.ksk.Public}
	root, tld := keysOf(t, ".", false), keysOf(t, "test.", false)
	p.root = root[0].Public
	for addr, z := range map[string]Source{
		rootAddr: signedSource(".", root, "@ SOA root-servers.net. hostmaster.test. 1 7200 900 1209600 60\n@ NS root-servers.net.\nroot-servers.net. A "+rootAddr+"\n"+
			"test. NS ns.test.\nns.test. A "+tldAddr+"\n"+dsLines(t, tld)),
		tldAddr: signedSource("test.", tld, "@ SOA ns hostmaster 1 7200 900 1209600 60\n@ NS ns\nns A "+tldAddr+"\ndemo NS a.ns.demo\ndemo NS b.ns.demo\na.ns.demo A 192.0.2.1\nb.ns.demo A 192.0.2.2\n"+
			dsLines(t, p.keys)+theirs.ToDS(dns.SHA256).String()+"\n"),
	} {
		s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(top, addr+":53")}})
		if errs := s.SetZones([]Source{z}); errs != nil {
			t.Fatal(errs)
		}
	}
	return p
}

// tellsWho asks a validating resolver who answers for a name, and whether it is believed.
func (r *resolver) tellsWho(t *testing.T, name string) (who string, secure bool) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeTXT)
	m.SetEdns0(4096, true)
	c := dns.Client{Net: "tcp", Timeout: 20 * time.Second}
	reply, _, err := c.Exchange(m, r.addr.String())
	if err != nil {
		return err.Error(), false
	}
	who = rcodeLabel(reply.Rcode)
	for _, rr := range reply.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			who = txt.Txt[0]
		}
	}
	return who, reply.AuthenticatedData
}

// TestTwoProviders: a zone at us and at Knot, each with keys of its own (RFC 8901 section
// 2.1.2). Where each publishes the other's, validators believe what both say, whoever they
// had the keys from; where neither does, they believe one of them at most.
func TestTwoProviders(t *testing.T) {
	for _, c := range []struct {
		validator string
		told      bool
	}{{"unbound", true}, {"kresd", true}, {"unbound", false}} {
		t.Run(fmt.Sprintf("%s/told=%v", c.validator, c.told), func(t *testing.T) {
			p, dir := buildProviders(t, c.told), t.TempDir()
			write(t, filepath.Join(dir, "root.key"), p.root.String()+"\n")
			r := validators[c.validator](t, dir)
			believed := make(map[string]int)
			for i := 0; i < tellers && (i < 60 || c.told && len(believed) < 2); i++ {
				who, secure := r.tellsWho(t, fmt.Sprintf("w%d.demo.test.", i))
				if c.told && !secure {
					t.Fatalf("w%d: %s is not believed", i, who)
				}
				if secure {
					believed[who]++
				}
			}
			t.Logf("believed: %v", believed)
			if both := believed["rhumb"] > 0 && believed["knot"] > 0; both != c.told {
				t.Errorf("believed %v, told %v", believed, c.told)
			}
			if !c.told {
				return
			}
			for i := range 10 { // denied by either, each in its own way (section 5.2)
				if got := r.verdict(t, fmt.Sprintf("nix%d.demo.test. A", i)); got != "NOERROR secure 0" && got != "NXDOMAIN secure 0" {
					t.Errorf("nix%d: %s", i, got)
				}
			}
			p.askParent(t)
		})
	}
}

// askParent lets BIND's tool for parents judge what we ask of them: it goes by what is
// signed with a key that has a DS now, and finds both providers' keys.
func (p *providers) askParent(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	var child string
	for _, qtype := range []string{"DNSKEY", "CDS", "CDNSKEY"} {
		m := exchange(t, "tcp", p.ours.Addrs()[0], ask(t, "demo.test. "+qtype, do))
		for _, rr := range m.Answer {
			child += rr.String() + "\n"
		}
	}
	write(t, filepath.Join(dir, "child"), child)
	write(t, filepath.Join(dir, "dsset"), dsLines(t, p.keys))
	out, err := exec.Command("dnssec-cds", "-s", "-7d", "-f", filepath.Join(dir, "child"), "-d", filepath.Join(dir, "dsset"), "demo.test").CombinedOutput()
	theirs := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "demo.test."}, Flags: p.ksk.Flags, Protocol: 3, Algorithm: p.ksk.Algorithm, PublicKey: p.ksk.Public}
	if err != nil || strings.Count(string(out), " IN DS ") != 2 || !strings.Contains(string(out), fmt.Sprintf(" IN DS %d 13 2 ", theirs.KeyTag())) {
		t.Errorf("dnssec-cds: %v\n%s\nof\n%s", err, out, child)
	}
}
