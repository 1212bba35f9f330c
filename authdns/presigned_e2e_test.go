//go:build e2e

package authdns

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
)

// presignedConf makes Knot serve a zone as its file has it.
const presignedConf = `server:
    listen: 127.0.0.2@53
    rundir: "%[1]s"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    version: ""
database:
    storage: "%[1]s"
key:
  - id: one.test
    algorithm: hmac-sha256
    secret: %[2]s
acl:
  - id: look
    address: 127.0.0.0/8
    action: transfer
zone:
  - domain: signed.test
    acl: look
    storage: "%[1]s"
    file: signed.zone
    zonefile-sync: -1
`

// TestPresignedPeers: for every name of a zone that was signed elsewhere, and for many
// that are not in it, we send what Knot sends of the same file, proofs and all; and
// BIND's validator believes it.
func TestPresignedPeers(t *testing.T) {
	if !withinNamespace(t) {
		return
	}
	names := presignedNames(t)
	for _, kind := range presignedKinds {
		t.Run(kind, func(t *testing.T) {
			src := presignedSource(t, kind)
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "signed.zone"), src.Data, 0o644); err != nil {
				t.Fatal(err)
			}
			knot := startPeer(t, "knot", knotAddr, strings.Replace(presignedConf, `    storage: "%[1]s"
    file`, `    storage: "`+dir+`"
    file`, 1), "knotd", "-c")
			s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(low, ourAddr)}})
			until(t, "Knot is up", func() (bool, string) { n := knot.serial("signed.test."); return n == 7, fmt.Sprintf("serial %d", n) })
			src.Data = []byte(strings.Join(knot.copied(t, "signed.test."), "\n") + "\n") // as a transfer brings it
			if errs := s.SetZones([]Source{src}); errs != nil {
				t.Fatal(errs)
			}
			ours, theirs := newAsker(t, ourAddr), newAsker(t, knotAddr)
			differ := 0
			for _, name := range names {
				if kind == "nsec" && strings.HasSuffix(name, ".starent.signed.test.") {
					continue // Knot does not prove that a wildcard is there which has nothing but names below it
				}
				for _, qtype := range []uint16{dns.TypeA, dns.TypeDS, dns.TypeTXT, dns.TypeNSEC} {
					if qtype == dns.TypeNSEC && !s.zones["signed.test."].zone.At(name).Exists {
						continue // Knot does not prove that an NSEC is the wildcard's
					}
					q := ask(t, fmt.Sprintf("%s %s", name, dns.Type(qtype)), do)
					got, want := ours.sections(t, q), theirs.sections(t, q)
					if got != want {
						if differ++; differ < 6 {
							t.Errorf("%s %s\nours\n%s\nKnot\n%s", name, dns.Type(qtype), got, want)
						}
					}
				}
			}
			if differ > 0 {
				t.Fatalf("%d of %d answers differ from Knot's", differ, 4*len(names))
			}
			s.believedByDelv(t, kind == "optout")
		})
	}
}

// peerAsker asks one server on one connection after the other.
type peerAsker struct{ conn net.Conn }

func newAsker(t *testing.T, addr string) *peerAsker {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &peerAsker{c}
}

// sections asks and writes RCODE, AA, and the records of answer and authority, in order
// and with their TTL.
func (p *peerAsker) sections(t *testing.T, query []byte) string {
	t.Helper()
	p.conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := &dns.Conn{Conn: p.conn}
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	m, err := c.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%s aa=%v", dns.RcodeToString[m.Rcode], m.Authoritative)
	for i, section := range [][]dns.RR{m.Answer, m.Ns} {
		var lines []string
		for _, rr := range section {
			h := rr.Header()
			h.Name = zone.Canonical(h.Name)
			lines = append(lines, strings.ToLower(rr.String()))
		}
		slices.Sort(lines)
		out += fmt.Sprintf("\n%s:\n%s", []string{"answer", "authority"}[i], strings.Join(lines, "\n"))
	}
	return out
}

// believedByDelv lets BIND's validator judge an answer of each kind, from the zone's own
// key. Where opting out covers the gap, a wildcard's answer is no more than unsigned (RFC
// 5155 section 12.2).
func (s *Server) believedByDelv(t *testing.T, optOut bool) {
	t.Helper()
	var key *dns.DNSKEY
	for _, rr := range s.zones["signed.test."].zone.RRset("signed.test.", dns.TypeDNSKEY) {
		if k := rr.(*dns.DNSKEY); k.Flags&dns.SEP != 0 {
			key = k
		}
	}
	anchors := filepath.Join(t.TempDir(), "anchors")
	text := fmt.Sprintf("trust-anchors { \"signed.test.\" static-key %d %d %d \"%s\"; };\n", key.Flags, key.Protocol, key.Algorithm, key.PublicKey)
	if err := os.WriteFile(anchors, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	expanded := "; fully validated"
	if optOut {
		expanded = "; unsigned answer"
	}
	for question, want := range map[string]string{
		"chain.signed.test AAAA":  "; fully validated",
		"x.wild.signed.test A":    expanded,
		"mail.dn.signed.test A":   "; fully validated",
		"ent.signed.test A":       "; negative response, fully validated",
		"a.b.nix.signed.test A":   "; negative response, fully validated",
		"x.wild.signed.test MX":   "; negative response, fully validated",
		"x.starent.signed.test A": "; negative response, fully validated",
		"secure.signed.test DS":   "; fully validated",
	} {
		f := strings.Fields(question)
		out, err := exec.Command("delv", "@127.0.0.1", "-a", anchors, "+root=signed.test", f[0], f[1]).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("delv %s: %v\n%s\nwant %q", question, err, out, want)
		}
	}
}
