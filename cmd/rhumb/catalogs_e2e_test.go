//go:build e2e

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// The peers stand on the loopback of one network namespace.
const (
	catalogOurs   = "127.0.0.1:53"
	catalogKnot   = "127.0.0.2:53"
	catalogBIND   = "127.0.0.4:53"
	catalogKey    = "one.test."
	catalogSecret = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
)

// catalogServes waits until a server answers for zones "NAME SERIAL", serial 0 meaning that it
// has no such zone.
func catalogServes(t *testing.T, who, addr, step string, zones ...string) {
	t.Helper()
	for _, z := range zones {
		var name string
		var want uint32
		if _, err := fmt.Sscan(z, &name, &want); err != nil {
			t.Fatal(err)
		}
		awaitEvent(t, fmt.Sprintf("%s: %s has %s with serial %d", step, who, name, want), func() (bool, string) {
			got, why := serialAt(addr, name)
			return got == want && (want != 0 || why == "REFUSED" || why == "NOTAUTH"), fmt.Sprintf("serial %d, %s", got, why)
		})
	}
}

// awaitEvent waits for an event, bounded; what was seen last is said when it does not come.
func awaitEvent(t *testing.T, what string, seen func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		ok, got := seen()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s; seen: %s", what, got)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ownNetwork runs the test once more, in a process that has a network of its own, and is
// true there.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv("RHUMB_TEST_NETNS") == "1" {
		for _, words := range []string{"link set lo up", "addr add 127.0.0.4/32 dev lo"} { // BIND listens on what interfaces have
			if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v\n%s", words, err, out)
			}
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Fatal("needs root, for a network namespace and port 53")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "10m")
	cmd.Env = append(os.Environ(), "RHUMB_TEST_NETNS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in a namespace of its own: %v", err)
	}
	return false
}

// TestCatalogPeers: Knot follows our catalogs and we follow Knot's; zones are added,
// removed and moved, and nothing goes when a catalog is emptied or its primary is gone.
// In the long form BIND follows beside it, and a zone changes its owner there.
func TestCatalogPeers(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	fleet := &catalogFleet{blobs: make(map[string][]byte), told: []netip.AddrPort{netip.MustParseAddrPort(catalogKnot)}}
	soak := os.Getenv("RHUMB_SOAK") == "1"
	if soak {
		fleet.told = append(fleet.told, netip.MustParseAddrPort(catalogBIND))
	}
	dir := t.TempDir()
	node := startCatalogNode(t, dir, fleet.blob)
	in := func(name string, serial uint32, listed placement.Listed) placement.Zone {
		return fleet.zone(name, serial, listed)
	}
	one := placement.Listed{In: "catz1.test."}
	a, b, c := in("a.test.", 1, placement.Listed{In: "catz1.test.", Group: "far"}), in("b.test.", 1, one), in("c.test.", 1, one)
	publish := func(zones ...placement.Zone) { node.keeper.wanted.put(fleet.inventory(zones...)) }
	publish(a, b)
	knot := startCatalogPeer(t, "knot", catalogKnot, knotCatalogs+knotMembers("w", "y"), func(dir string) {
		for _, name := range []string{"w", "x", "y", "z"} {
			writeKnotZone(t, dir, name+".knot.test.", catalogZone(name+".knot.test.", 5))
		}
		writeKnotZone(t, dir, "hand.knot.test.", handWritten("hand.knot.test.", 1, "k.zones PTR x.knot.test."))
		writeKnotZone(t, dir, "next.knot.test.", handWritten("next.knot.test.", 1))
	}, "knotd", "-c")
	peers := []*catalogPeer{knot}
	if soak {
		peers = append(peers, startCatalogPeer(t, "bind", catalogBIND, bindCatalogs, nil, "named", "-g", "-4", "-c"))
	}
	theyServe := func(step string, zones ...string) {
		t.Helper()
		for _, p := range peers {
			catalogServes(t, p.name, p.addr, step, zones...)
		}
	}
	weServe := func(step string, zones ...string) {
		t.Helper()
		catalogServes(t, "rhumb", catalogOurs, step, zones...)
	}
	theyServe("RFC 9432 4.2: listed by us", "a.test. 1", "b.test. 1")
	weServe("RFC 9432 4.2: listed by Knot", "w.knot.test. 5", "x.knot.test. 5", "y.knot.test. 5")
	if err := mayCopy("a.test."); err == nil {
		t.Error("RFC 9432 4.4.2: Knot did not take a.test. for one of group far")
	}
	if err := mayCopy("b.test."); err != nil {
		t.Errorf("RFC 9432 4.4.2: Knot took b.test. for one of group far: %v", err)
	}

	publish(a, c)
	knot.configure(t, knotCatalogs+knotMembers("w", "z"))
	knot.control(t, "reload")
	theyServe("RFC 9432 5.3: one added, one removed by us", "c.test. 1", "b.test. 0", "a.test. 1")
	weServe("RFC 9432 5.3: one added, one removed by Knot", "z.knot.test. 5", "y.knot.test. 0", "w.knot.test. 5")
	if _, err := os.Stat(filepath.Join(dir, "secondary", "y.knot.test.zone")); err == nil {
		t.Error("RFC 9432 5.3: y.knot.test. is on our disk still")
	}

	publish(a, in("c.test.", 1, placement.Listed{Off: true}))
	theyServe("RFC 9432 5.5: c.test. leaves", "c.test. 0", "a.test. 1")
	publish(a, in("c.test.", 2, placement.Listed{In: "catz2.test."}))
	theyServe("RFC 9432 5.5: and is in the other one", "c.test. 2", "a.test. 1")
	if soak {
		changeOfOwner(t, fleet, publish, peers[1])
	}

	received := node.log.count(`msg="zone received" zone=x.knot.test.`)
	writeKnotZone(t, knot.dir, "hand.knot.test.", handWritten("hand.knot.test.", 2, "k.zones PTR x.knot.test.", "coo.k.zones PTR next.knot.test."))
	writeKnotZone(t, knot.dir, "next.knot.test.", handWritten("next.knot.test.", 2, "k.zones PTR x.knot.test."))
	knot.control(t, "zone-reload", "next.knot.test", "hand.knot.test")
	belong := "w.knot.test. catz.knot.test., x.knot.test. next.knot.test., z.knot.test. catz.knot.test."
	awaitEvent(t, "RFC 9432 4.4.1: x.knot.test. moves: "+belong, func() (bool, string) {
		got := node.owners()
		return got == belong, got
	})
	weServe("RFC 9432 4.4.1: one moved by Knot", "x.knot.test. 5")
	if again := node.log.count(`msg="zone received" zone=x.knot.test.`); received != 1 || again != 1 {
		t.Errorf("RFC 9432 4.4.1: x.knot.test. was received %d times before it moved, now %d; want what was held to be kept", received, again)
	}

	knot.configure(t, knotCatalogs)
	writeKnotZone(t, knot.dir, "next.knot.test.", strings.Replace(handWritten("next.knot.test.", 3), `"2"`, `"1"`, 1))
	knot.control(t, "reload")
	for name, why := range map[string]string{"catz.knot.test.": "0 of 2 listed zones", "next.knot.test.": "RFC 9432 section 4.3.1"} {
		awaitEvent(t, fmt.Sprintf("RFC 9432 5.1, 6: %s is not followed: %s", name, why), func() (bool, string) {
			h, _ := node.copies.in.Held(name)
			return h.Refused && strings.Contains(h.Fault, why), h.Fault
		})
	}
	weServe("RFC 9432 5.1, 6: Knot lists nothing", "w.knot.test. 5", "x.knot.test. 5", "z.knot.test. 5")
	knot.kill()
	node.stop()
	node = startCatalogNode(t, dir, fleet.blob)
	publish()
	weServe("RFC 9432 5.1: Knot is gone, and we have started anew", "w.knot.test. 5", "x.knot.test. 5", "z.knot.test. 5")
	if got := node.owners(); got != belong {
		t.Errorf("after a start they belong to %s, want %s", got, belong)
	}
}

// changeOfOwner moves d.test. between our catalogs, before the eyes of somebody who knows
// how that goes.
func changeOfOwner(t *testing.T, fleet *catalogFleet, publish func(...placement.Zone), p *catalogPeer) {
	t.Helper()
	says := func(step, what string) {
		t.Helper()
		awaitEvent(t, fmt.Sprintf("RFC 9432 4.4.1: %s: %s says %q", step, p.name, what), func() (bool, string) {
			return p.log.count(what) > 0, p.log.tail(5)
		})
	}
	publish(fleet.zone("d.test.", 1, placement.Listed{In: "catz1.test."}))
	catalogServes(t, p.name, p.addr, "RFC 9432 4.4.1: listed", "d.test. 1")
	publish(fleet.zone("d.test.", 1, placement.Listed{In: "catz1.test.", Coo: "catz2.test."}))
	says("about to move", fmt.Sprintf("catz: updating catalog zone 'catz1.test' with serial %d", fleet.revision))
	publish(fleet.zone("d.test.", 1, placement.Listed{In: "catz2.test.", From: "catz1.test."}))
	says("moves", "catz: adding zone 'd.test' from catalog 'catz2.test' - success")
	catalogServes(t, p.name, p.addr, "RFC 9432 4.4.1: moves", "d.test. 1")
	publish(fleet.zone("d.test.", 2, placement.Listed{In: "catz2.test."}))
	says("has moved", fmt.Sprintf("catz: updating catalog zone 'catz1.test' with serial %d", fleet.revision))
	catalogServes(t, p.name, p.addr, "RFC 9432 4.4.1: has moved", "d.test. 2")
}

// handWritten is a catalog with lines of its own.
func handWritten(name string, serial uint32, lines ...string) string {
	return fmt.Sprintf("$ORIGIN %s\n$TTL 0\n@ SOA invalid. invalid. %d 86400 86400 864000 60\n@ NS invalid.\nversion TXT \"2\"\n%s\n", name, serial, strings.Join(lines, "\n"))
}

// writeKnotZone writes a zone where Knot looks for it.
func writeKnotZone(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name+"zone"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// owners are listed zones, each with its catalog.
func (n *catalogNode) owners() string {
	told := n.keeper.catalogs.told.Load()
	if told == nil {
		return "none"
	}
	var out []string
	for zone, catalog := range told.owners {
		out = append(out, zone+" "+catalog)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// knotMembers are zones of Knot's which it lists in catz.knot.test.
func knotMembers(zones ...string) string {
	var b strings.Builder
	for _, z := range zones {
		fmt.Fprintf(&b, "  - domain: %s.knot.test\n    catalog-role: member\n    catalog-zone: catz.knot.test\n", z)
	}
	return b.String()
}

// mayCopy copies a zone from Knot as anybody may.
func mayCopy(name string) error {
	m := new(dns.Msg)
	m.SetAxfr(name)
	ch, err := new(dns.Transfer).In(m, catalogKnot)
	if err != nil {
		return err
	}
	for e := range ch {
		err = errors.Join(err, e.Error)
	}
	return err
}
