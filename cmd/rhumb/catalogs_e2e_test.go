//go:build e2e

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns"
	"rhumb/internal/config"
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

// knotCatalogs makes Knot follow catz1.test and catz2.test, which are ours, and make
// catz.knot.test of the zones that are appended. In hand.knot.test and next.knot.test
// stands what the test writes there. Zones in group far may be copied by nobody, so that
// it shows who is in it.
const knotCatalogs = `server:
    listen: 127.0.0.2@53
    rundir: "%[1]s"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    version: ""
database:
    storage: "%[1]s"
log:
  - target: stderr
    any: info
key:
  - id: one.test
    algorithm: hmac-sha256
    secret: %[2]s
remote:
  - id: rhumb
    address: 127.0.0.1@53
    key: one.test
acl:
  - id: told
    key: one.test
    action: [notify, transfer]
  - id: look
    address: 127.0.0.0/8
    action: transfer
template:
  - id: default
    storage: "%[1]s"
    zonefile-sync: -1
    notify: rhumb
    acl: told
  - id: member
    storage: "%[1]s"
    zonefile-sync: -1
    journal-content: all
    master: rhumb
    acl: [told, look]
  - id: far
    storage: "%[1]s"
    zonefile-sync: -1
    journal-content: all
    master: rhumb
    acl: told
zone:
  - domain: catz1.test
    template: member
    catalog-role: interpret
    catalog-template: [member, far]
  - domain: catz2.test
    template: member
    catalog-role: interpret
    catalog-template: [member, far]
  - domain: catz.knot.test
    catalog-role: generate
  - domain: hand.knot.test
    journal-content: none
  - domain: next.knot.test
    journal-content: none
  - domain: x.knot.test
`

const bindCatalogs = `options { directory "%[1]s"; listen-on port 53 { 127.0.0.4; }; listen-on-v6 { none; };
  pid-file "%[1]s/pid"; session-keyfile "%[1]s/session"; recursion no; notify no; dnssec-validation no; allow-transfer { 127.0.0.0/8; };
  serial-query-rate 1000; min-refresh-time 2; min-retry-time 2;
  catalog-zones {
    zone "catz1.test" default-primaries { 127.0.0.1 key one.test; } in-memory yes min-update-interval 1;
    zone "catz2.test" default-primaries { 127.0.0.1 key one.test; } in-memory yes min-update-interval 1;
  };
};
controls { };
key one.test { algorithm hmac-sha256; secret "%[2]s"; };
server 127.0.0.1 { keys one.test; };
zone "catz1.test" { type secondary; file "catz1.zone"; primaries { 127.0.0.1; }; };
zone "catz2.test" { type secondary; file "catz2.zone"; primaries { 127.0.0.1; }; };
`

// spoken collects what somebody says, from several goroutines.
type spoken struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *spoken) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

// tail is the end of it, without what we were answered.
func (s *spoken) tail(lines int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(strings.Split(strings.TrimSpace(s.buf.String()), "\n"), func(l string) bool { return strings.Contains(l, "] control, ") })
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// count is how often something was said.
func (s *spoken) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.buf.String(), what)
}

// catalogPeer is a foreign name server.
type catalogPeer struct {
	name, addr, dir string
	log             *spoken
	kill            func()
}

// startCatalogPeer runs one until the test ends, or it is killed.
func startCatalogPeer(t *testing.T, name, addr, conf string, prepare func(dir string), command ...string) *catalogPeer {
	t.Helper()
	p := &catalogPeer{name: name, addr: addr, dir: t.TempDir(), log: &spoken{}}
	p.configure(t, conf)
	if prepare != nil {
		prepare(p.dir)
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatalf("needs %s (Debian: knot bind9): %v", command[0], err)
	}
	cmd := exec.Command(command[0], append(command[1:], filepath.Join(p.dir, "conf"))...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.kill = sync.OnceFunc(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.log.tail(40))
		}
	})
	return p
}

func (p *catalogPeer) configure(t *testing.T, conf string) {
	t.Helper()
	text := fmt.Appendf(nil, conf, p.dir, catalogSecret)
	if err := os.WriteFile(filepath.Join(p.dir, "conf"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// control says something to Knot.
func (p *catalogPeer) control(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command("knotc", append([]string{"-s", filepath.Join(p.dir, "knot.sock")}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("knotc %v: %v\n%s", words, err, out)
	}
	return string(out)
}

// serialAt is the serial of a zone as somebody answers it, and the RCODE.
func serialAt(addr, name string) (uint32, string) {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeSOA)
	r, _, err := (&dns.Client{Timeout: time.Second}).Exchange(m, addr)
	if err != nil {
		return 0, err.Error()
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa.Serial, dns.RcodeToString[r.Rcode]
		}
	}
	return 0, dns.RcodeToString[r.Rcode]
}

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

// catalogNode is our side: a name server with all that catalogs take.
type catalogNode struct {
	keeper *zoneKeeper
	copies *transfers
	log    *spoken
	stop   func()
}

// startCatalogNode runs one on what its data directory holds.
func startCatalogNode(t *testing.T, dir string, blob func(context.Context, string) ([]byte, error)) *catalogNode {
	t.Helper()
	n := &catalogNode{log: &spoken{}}
	log := slog.New(slog.NewTextHandler(n.log, nil))
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte("hmac-sha256:"+catalogKey+":"+catalogSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	n.copies, err = newTransfers(&unit{name: "rhumb-dns", log: log, cfg: &config.Node{Node: config.Self{DataDir: dir}, Transfers: config.Transfers{Keys: keys, Source: netip.MustParseAddr("127.0.0.1")}}})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := authdns.New(authdns.Config{Site: "ams1", Node: "ams1-a", Workers: 1, Logger: log, Transfers: n.copies.desk,
		Listeners: []authdns.Listener{{Level: placement.LowLevel, Addr: netip.MustParseAddrPort(catalogOurs)}}})
	if err != nil {
		t.Fatal(err)
	}
	n.keeper = &zoneKeeper{zones: srv, blob: blob, copies: n.copies.in, changed: n.copies.changed, log: log, wanted: newBox[*placement.Inventory]()}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{srv.Run, n.keeper.run, n.copies.notifier.Run, n.copies.in.Run} {
		group.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("we said:\n%s", n.log.tail(40))
		}
	})
	return n
}

// catalogFleet makes the inventories of the test; its zones are kept by digest.
type catalogFleet struct {
	revision int64
	told     []netip.AddrPort
	mu       sync.Mutex
	blobs    map[string][]byte
}

// blob hands a zone out as the store does.
func (f *catalogFleet) blob(_ context.Context, sha string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := f.blobs[sha]; ok {
		return b, nil
	}
	return nil, errors.New("no such blob")
}

// inventory has both catalogs of ours, both of Knot's, and zones.
func (f *catalogFleet) inventory(zones ...placement.Zone) *placement.Inventory {
	f.revision += 10
	inv := &placement.Inventory{Revision: f.revision}
	inv.Safety.KeepNames = 0.7
	rules := &placement.Transfer{Keys: []string{catalogKey}, Notify: f.told, NotifyKey: catalogKey}
	for _, name := range []string{"catz1.test.", "catz2.test."} {
		inv.Zones = append(inv.Zones, placement.Zone{Name: name, Level: placement.LowLevel, Transfer: rules, Catalog: &placement.Catalog{}})
	}
	for _, name := range []string{"catz.knot.test.", "hand.knot.test.", "next.knot.test."} {
		inv.Zones = append(inv.Zones, placement.Zone{Name: name, Level: placement.LowLevel,
			Secondary: &placement.Secondary{Primaries: []netip.AddrPort{netip.MustParseAddrPort(catalogKnot)}, Key: catalogKey},
			Catalog:   &placement.Catalog{Members: placement.CatalogMembers{Level: placement.LowLevel}}})
	}
	for _, z := range zones {
		z.Level, z.Transfer = placement.LowLevel, rules
		inv.Zones = append(inv.Zones, z)
	}
	return inv
}

// zone is one of the fleet, at a serial.
func (f *catalogFleet) zone(name string, serial uint32, listed placement.Listed) placement.Zone {
	text := catalogZone(name, serial)
	sha := fmt.Sprintf("%s %d", name, serial)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs[sha] = []byte(text)
	return placement.Zone{Name: name, SHA256: sha, Serial: serial, Listed: &listed}
}

// catalogZone is a zone whose timers are so long that only a NOTIFY makes anybody ask.
func catalogZone(name string, serial uint32) string {
	return fmt.Sprintf("$ORIGIN %s\n$TTL 300\n@ SOA ns h %d 86400 86400 864000 60\n@ NS ns\nns A 127.0.0.1\n", name, serial)
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
