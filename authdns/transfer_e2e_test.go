//go:build e2e

package authdns

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

	"rhumb/authdns/transfer"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

// Addresses of the peers: all on the loopback of one network namespace.
const (
	ourAddr  = "127.0.0.1:53"
	knotAddr = "127.0.0.2:53"
	nsdAddr  = "127.0.0.3:53"
	bindAddr = "127.0.0.4:53"
)

// knotConf makes Knot a secondary of out.test, which is ours, and the primary of
// in.test. Transfers are signed both ways.
const knotConf = `server:
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
zone:
  - domain: out.test
    storage: "%[1]s"
    zonefile-sync: -1
    journal-content: all
    master: rhumb
    acl: [told, look]
  - domain: in.test
    storage: "%[1]s"
    file: in.zone
    zonefile-sync: -1
    zonefile-load: difference
    journal-content: changes
    notify: rhumb
    acl: [told, look]
`

const nsdConf = `server:
  ip-address: 127.0.0.3
  server-count: 1
  username: ""
  zonesdir: "%[1]s"
  database: ""
  pidfile: "%[1]s/pid"
  xfrdfile: "%[1]s/xfrd.state"
  xfrdir: "%[1]s"
  zonelistfile: "%[1]s/zone.list"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
key:
  name: one.test
  algorithm: hmac-sha256
  secret: "%[2]s"
zone:
  name: out.test
  zonefile: out.zone
  request-xfr: 127.0.0.1 one.test
  allow-notify: 127.0.0.1 one.test
  provide-xfr: 127.0.0.0/8 NOKEY
`

const bindConf = `options { directory "%[1]s"; listen-on port 53 { 127.0.0.4; }; listen-on-v6 { none; };
  pid-file "%[1]s/pid"; session-keyfile "%[1]s/session"; recursion no; notify no; dnssec-validation no; allow-transfer { 127.0.0.0/8; };
  serial-query-rate 1000; min-refresh-time 2; min-retry-time 2; };
controls { };
key one.test { algorithm hmac-sha256; secret "%[2]s"; };
server 127.0.0.1 { keys one.test; };
zone "out.test" { type secondary; file "out.zone"; masterfile-format text; primaries { 127.0.0.1; }; allow-notify { key one.test; }; };
`

// said collects what somebody says, from several goroutines.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// peer is a foreign name server of the test.
type peer struct {
	name, addr, dir string
	log             *said
}

// startPeer runs a name server until the test ends.
func startPeer(t *testing.T, name, addr, conf string, command ...string) *peer {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, conf, dir, xfrSecret), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatalf("needs %s (Debian: knot nsd bind9): %v", command[0], err)
	}
	p := &peer{name: name, addr: addr, dir: dir, log: &said{}}
	cmd := exec.Command(command[0], append(command[1:], file)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if name == "knot" {
		writeIn(t, dir, 1, inLines(60))
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, tail(p.log.String(), 40))
		}
	})
	return p
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// inLines are records of a zone.
func inLines(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("h%d A 198.51.100.%d", i, i%250+1))
	}
	return out
}

// zoneText is a zone with a serial. Its timers are so long that only a NOTIFY can
// make anybody ask.
func zoneText(origin string, serial int, lines []string) string {
	return fmt.Sprintf("$ORIGIN %s\n$TTL 300\n@ SOA ns h %d 86400 86400 864000 60\n@ NS ns\nns A 127.0.0.1\n%s\n", origin, serial, strings.Join(lines, "\n"))
}

func writeIn(t *testing.T, dir string, serial int, lines []string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "in.zone"), []byte(zoneText("in.test.", serial, lines)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// change replaces, adds and removes a few records; names stay unique.
func change(random *rand.Rand, lines []string, round int) []string {
	out := slices.Clone(lines)
	for range 1 + random.IntN(4) {
		i := random.IntN(len(out))
		switch random.IntN(3) {
		case 0:
			out[i] = strings.Fields(out[i])[0] + fmt.Sprintf(" TXT \"round %d\"", round)
		case 1:
			out = append(out, fmt.Sprintf("r%d-%d AAAA 2001:db8::%x", round, len(out), round))
		case 2:
			if len(out) > 40 {
				out = slices.Delete(out, i, i+1)
			}
		}
	}
	return out
}

// records are what a zone holds, in order and in one spelling.
func records(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	zp := dns.NewZoneParser(strings.NewReader(text), "", "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		out = append(out, rr.String())
	}
	if err := zp.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// copied asks a peer for all of a zone.
func (p *peer) copied(t *testing.T, name string) []string {
	t.Helper()
	ch, err := new(dns.Transfer).In(axfr(name), p.addr)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	var out []string
	for e := range ch {
		if e.Error != nil {
			t.Fatalf("%s: %v", p.name, e.Error)
		}
		for _, rr := range e.RR {
			out = append(out, rr.String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// serial returns a peer's serial of a zone, 0 for none.
func (p *peer) serial(name string) uint32 {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeSOA)
	c := &dns.Client{Timeout: time.Second}
	r, _, err := c.Exchange(m, p.addr)
	if err != nil || len(r.Answer) == 0 {
		return 0
	}
	s, ok := r.Answer[0].(*dns.SOA)
	if !ok {
		return 0
	}
	return s.Serial
}

// until waits for an event, bounded; what it was is said when it does not come.
func until(t *testing.T, what string, seen func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		ok, got := seen()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute; seen: %s", what, got)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ours is our side: a server with both directions, out.test to leave and in.test to come.
type ours struct {
	server *Server
	desk   *transfer.Desk
	rules  placement.Transfer
	out    []byte
	log    *said
	came   chan struct{}
}

func startOurs(t *testing.T, told ...string) *ours {
	t.Helper()
	o := &ours{desk: desk(t), log: &said{}, came: make(chan struct{}, 1)}
	log := slog.New(slog.NewTextHandler(o.log, nil))
	notifier := transfer.NewNotifier(o.desk.Keys, netip.Addr{}, log)
	o.desk.Out.Teller = notifier
	o.desk.In = transfer.NewIn(transfer.Config{Dir: t.TempDir(), Keys: o.desk.Keys, Log: log,
		Check: func(name string, text []byte) ([]string, error) {
			z, err := zone.Parse(name, name, bytes.NewReader(text))
			return z.Names(), err
		},
		Changed: func() {
			select {
			case o.came <- struct{}{}:
			default:
			}
		}})
	o.rules = placement.Transfer{Keys: []string{xfrKey}, NotifyKey: xfrKey}
	for _, a := range told {
		o.rules.Notify = append(o.rules.Notify, netip.MustParseAddrPort(a))
	}
	o.server = start(t, Config{Workers: 1, Listeners: []Listener{loopback(low, ourAddr)}, Transfers: o.desk,
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort(knotAddr)}}) // which knows in.test, for aliases
	o.server.Apply(t.Context(), fleet(t, plan{}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- notifier.Run(ctx) }()
	go func() { done <- o.desk.In.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		if t.Failed() {
			t.Logf("we said:\n%s", tail(o.log.String(), 40))
		}
	})
	return o
}

// publish puts the zones in force: what leaves, and what came.
func (o *ours) publish(t *testing.T) {
	t.Helper()
	sources := []Source{{Zone: placement.Zone{Name: "out.test.", Transfer: &o.rules}, Data: o.out}}
	if h, ok := o.desk.In.Held("in.test."); ok {
		sources = append(sources, Source{Zone: placement.Zone{Name: "in.test.", SHA256: h.SHA256}, Data: h.Data, Unserved: h.Unserved})
	}
	if errs := o.server.SetZones(sources); errs != nil {
		t.Fatal(errs)
	}
}

// withinNamespace runs the test once more, in a process that has a network of its
// own, and is true there: notifications and transfers have goroutines, and so
// threads, of their own, which a namespace of one thread would leave outside.
func withinNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("RHUMB_TEST_NETNS") == "1" {
		run(t, "ip", "link", "set", "lo", "up")
		run(t, "ip", "addr", "add", "127.0.0.4/32", "dev", "lo") // BIND listens on what interfaces have
		return true
	}
	if os.Geteuid() != 0 {
		t.Fatal("needs root, for a network namespace and port 53")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "2h")
	cmd.Env = append(os.Environ(), "RHUMB_TEST_NETNS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in a namespace of its own: %v", err)
	}
	return false
}

// TestTransferPeers: 50 changes each way stay equal with Knot, by differences; in
// the long form 1,000, and with NSD and BIND as secondaries beside it.
func TestTransferPeers(t *testing.T) {
	if !withinNamespace(t) {
		return
	}
	rounds, told := 50, []string{knotAddr}
	soak := os.Getenv("RHUMB_SOAK") == "1"
	if soak {
		rounds, told = 1000, append(told, nsdAddr, bindAddr)
	}
	o := startOurs(t, told...)
	outLines := inLines(60)
	o.out = []byte(zoneText("out.test.", 1, outLines))
	o.publish(t)
	knot := startPeer(t, "knot", knotAddr, knotConf, "knotd", "-c")
	peers := []*peer{knot}
	if soak {
		peers = append(peers, startPeer(t, "nsd", nsdAddr, nsdConf, "nsd", "-d", "-c"), startPeer(t, "bind", bindAddr, bindConf, "named", "-g", "-4", "-c"))
	}
	until(t, "Knot is up", func() (bool, string) { return knot.serial("in.test.") == 1, "no answer" })
	o.desk.In.Set([]transfer.Incoming{{Name: "in.test.", Primaries: []netip.AddrPort{netip.MustParseAddrPort(knotAddr)}, Key: xfrKey, KeepNames: 0.7}})
	ours := &peer{name: "rhumb", addr: ourAddr}

	random := rand.New(rand.NewPCG(7, 7))
	zoneIn := inLines(60)
	for round := 1; round <= rounds; round++ {
		if round > 1 {
			outLines, zoneIn = change(random, outLines, round), change(random, zoneIn, round)
			o.out = []byte(zoneText("out.test.", round, outLines))
			o.publish(t)
			writeIn(t, knot.dir, round, zoneIn)
			run(t, "knotc", "-s", filepath.Join(knot.dir, "knot.sock"), "zone-reload", "in.test")
		}
		for _, p := range peers {
			until(t, fmt.Sprintf("round %d reaches %s", round, p.name), func() (bool, string) {
				n := p.serial("out.test.")
				return n == uint32(round), fmt.Sprintf("serial %d", n)
			})
		}
		until(t, fmt.Sprintf("round %d comes from Knot", round), func() (bool, string) {
			select {
			case <-o.came:
				o.publish(t)
			default:
			}
			n := ours.serial("in.test.")
			return n == uint32(round), fmt.Sprintf("serial %d", n)
		})
		h, _ := o.desk.In.Held("in.test.")
		if got, want := records(t, string(h.Data)), records(t, zoneText("in.test.", round, zoneIn)); !slices.Equal(got, want) {
			t.Fatalf("round %d: we hold\n%s\nKnot was given\n%s", round, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if round%10 != 0 && round != rounds {
			continue
		}
		if round%100 == 0 {
			t.Logf("%d changes", round)
		}
		for _, p := range peers {
			if got, want := p.copied(t, "out.test."), records(t, string(o.out)); !slices.Equal(got, want) {
				t.Fatalf("round %d: %s holds\n%s\nwe gave\n%s", round, p.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
	sent := make(map[string]uint64)
	for _, s := range o.desk.Out.Sent() {
		sent[s.Result] += s.Count
	}
	t.Logf("sent %v", sent)
	if want := uint64((rounds - 1) * len(peers)); sent["ixfr"] < want*9/10 {
		t.Errorf("sent %v, want nearly all of %d changes as differences", sent, want)
	}
	if n := strings.Count(o.log.String(), "kind=ixfr"); n < (rounds-1)*9/10 {
		t.Errorf("%d of %d changes came as differences", n, rounds-1)
	}
}
