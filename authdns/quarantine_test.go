package authdns

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"rhumb/authdns/wire"
)

// kindOf is the kind of a query for "NAME TYPE".
func kindOf(t *testing.T, question string, change ...func(*dns.Msg)) queryKind {
	t.Helper()
	q := ask(t, question, change...)
	return glance(q).kind(q)
}

// TestQuarantine: the name itself at first, what is around it at the second name
// beside it; other types and shapes go on; it ends, and comes back for longer.
func TestQuarantine(t *testing.T) {
	var q quarantine
	now := testClock()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	held := func(when time.Duration, question string, change ...func(*dns.Msg)) bool {
		return q.holds(ask(t, question, change...), at(when))
	}
	if held(0, "www.demo.test. A") {
		t.Error("held without a cause")
	}
	if kind, d := q.confine(kindOf(t, "a.cdn.demo.test. A"), now); kind.String() != "a.cdn.demo.test. A" || d != quarantineFirst {
		t.Errorf("first: %s for %v", kind, d)
	}
	for _, c := range []struct {
		when     time.Duration
		question string
		change   func(*dns.Msg)
		want     bool
	}{
		{0, "a.cdn.demo.test. A", nil, true},
		{0, "A.cDn.demo.test. A", nil, true},
		{0, "x.a.cdn.demo.test. A", nil, true},
		{0, "xa.cdn.demo.test. A", nil, false},
		{0, "b.cdn.demo.test. A", nil, false},
		{0, "cdn.demo.test. A", nil, false},
		{0, "a.cdn.demo.test. AAAA", nil, false},
		{0, "a.cdn.demo.test. A", edns0(), false},
		{quarantineFirst - 1, "a.cdn.demo.test. A", nil, true},
		{quarantineFirst, "a.cdn.demo.test. A", nil, false},
	} {
		if c.change == nil {
			c.change = func(*dns.Msg) {}
		}
		if got := held(c.when, c.question, c.change); got != c.want {
			t.Errorf("%s after %v: held %t", c.question, c.when, got)
		}
	}
	if kind, d := q.confine(kindOf(t, "x.a.cdn.demo.test. A"), at(time.Hour)); kind.String() != "a.cdn.demo.test. A" || d != 2*quarantineFirst {
		t.Errorf("again: %s for %v", kind, d)
	}
	if kind, d := q.confine(kindOf(t, "b.cdn.demo.test. A"), at(time.Hour)); kind.String() != "cdn.demo.test. A" || d != 4*quarantineFirst {
		t.Errorf("beside it: %s for %v", kind, d)
	}
	if !held(time.Hour, "z.cdn.demo.test. A") || held(time.Hour, "z.demo.test. A") {
		t.Error("what is around the two is not what is held")
	}
	for range 20 {
		if _, d := q.confine(kindOf(t, "cdn.demo.test. A"), at(time.Hour)); d > quarantineMost {
			t.Fatalf("held for %v", d)
		}
	}
	q.confine(kindOf(t, "test. NS"), now)
	if kind, _ := q.confine(kindOf(t, "other. NS"), now); kind.String() != "other. NS" || held(0, "third. NS") {
		t.Errorf("widened to the root: %s", kind)
	}
	for i := range 3 * quarantineKinds {
		q.confine(kindOf(t, fmt.Sprintf("www.zone%d.test. MX", i*7)), at(time.Hour))
	}
	if n := len(*q.list.Load()); n != quarantineKinds || !held(time.Hour, "z.cdn.demo.test. A") {
		t.Errorf("%d kinds; the longest is still held: %t", n, held(time.Hour, "z.cdn.demo.test. A"))
	}
}

// TestQuarantineShapes: options by their codes, not by what is in them; requests
// without a readable question by their header.
func TestQuarantineShapes(t *testing.T) {
	q := "www.demo.test. A"
	same := func(a, b queryKind) bool { return a == b }
	if a, b := kindOf(t, q, edns0(ecs("198.51.100.0/24"))), kindOf(t, q, edns0(ecs("203.0.113.0/28"))); !same(a, b) {
		t.Error("one option, two shapes")
	}
	nsid := &dns.EDNS0_NSID{Code: dns.EDNS0NSID}
	for name, change := range map[string]func(*dns.Msg){"none": edns0(), "another": edns0(nsid), "two": edns0(ecs("198.51.100.0/24"), nsid),
		"DO": func(m *dns.Msg) { edns0(ecs("198.51.100.0/24"))(m); m.IsEdns0().SetDo() }, "opcode": opcode(4)} {
		if same(kindOf(t, q, edns0(ecs("198.51.100.0/24"))), kindOf(t, q, change)) {
			t.Errorf("%s has the same shape", name)
		}
	}
	var held quarantine
	odd := header(0, 2)
	held.confine(glance(odd).kind(odd), testClock())
	if !held.holds(append(odd, 1, 2, 3), testClock()) || held.holds(header(0, 3), testClock()) || held.holds(ask(t, q), testClock()) {
		t.Error("a header without a question is not held by its counts")
	}
}

// TestTurnedAway: REFUSED and why, over both paths of UDP and over TCP.
func TestTurnedAway(t *testing.T) {
	s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	s.SetZones(sources())
	for _, c := range []struct {
		question string
		change   func(*dns.Msg)
		want     string
	}{
		{"www.demo.test. A", func(*dns.Msg) {}, "REFUSED"},
		{"x.wild.demo.test. A", func(m *dns.Msg) { m.RecursionDesired = true }, "REFUSED rd"},
		{"www.demo.test. A", func(m *dns.Msg) { m.SetEdns0(4096, true) }, "REFUSED" + opt + " do ede=15"},
	} {
		q := ask(t, c.question, c.change)
		s.shield.quarantine.confine(glance(q).kind(q), time.Now())
		for _, network := range []string{"udp", "tcp"} {
			m := exchange(t, network, s.Addrs()[0], q)
			if got := show(m); got != c.want || m.Question[0].Name != strings.Fields(c.question)[0] {
				t.Errorf("%s over %s: %s, want %s", c.question, network, got, c.want)
			}
		}
	}
	if got := show(exchange(t, "udp", s.Addrs()[0], ask(t, "alias.demo.test. CNAME"))); !strings.HasPrefix(got, "NOERROR") {
		t.Errorf("another query: %s", got)
	}
}

// FuzzGlance holds for any octets: no panic, and a refusal parses and is none to a reply.
func FuzzGlance(f *testing.F) {
	for _, c := range append(conformanceRows(f), moreRows(f)...) {
		f.Add(c.query)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		k := glance(in).kind(in)
		if !k.covers(k) || k.String() == "" {
			t.Fatalf("%q does not cover itself", k)
		}
		out := make([]byte, maxTCP)
		n, _ := refuse(in, out)
		if n == 0 {
			if len(in) >= headerLen && in[2]&0x80 == 0 {
				t.Fatal("silent towards a query")
			}
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(out[:n]); err != nil || !m.Response || m.Rcode != dns.RcodeRefused {
			t.Fatalf("%v: %s", err, m)
		}
	})
}

// boxWith is a file as a crash leaves it, with a query at hand.
func boxWith(t *testing.T, dir, life string, place int, query []byte) {
	t.Helper()
	b, err := openBlackbox(dir, life)
	if err != nil {
		t.Fatal(err)
	}
	copy(b.buffers()[place*wire.InSize:], query)
	b.begin(place, len(query))
	abandon(t, b)
}

// abandon lets go of a box, as the end of its process does.
func abandon(t *testing.T, b *blackbox) {
	t.Helper()
	if err := unix.Flock(int(b.file.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
}

// TestSalvage: one crash makes a suspect, two of one kind a quarantine, each more
// a longer one; a clean end leaves nothing, and what is damaged is passed over.
func TestSalvage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "authdns")
	var log bytes.Buffer
	now := testClock()
	var last *Server
	life := func() *Server {
		t.Helper()
		log.Reset()
		if last != nil {
			abandon(t, last.shield.tcp)
		}
		s, err := New(Config{Crashes: dir, Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		last = s
		return s
	}
	// A name with octets that are no text.
	killer := ask(t, "\\200\\001.demo.test. A", edns0())
	crash := func(query []byte) *Server {
		boxWith(t, dir, "", 31, query)
		now = now.Add(time.Second)
		return life()
	}
	if s := life(); s.shield.quarantine.list.Load() != nil || log.Len() > 0 {
		t.Errorf("a first start: %s", log.String())
	}
	if s := crash(killer); s.shield.quarantine.holds(killer, now) || !strings.Contains(log.String(), "it is suspected") {
		t.Errorf("after one crash: %s", log.String())
	}
	if s := crash(ask(t, "www.demo.test. A")); s.shield.quarantine.holds(killer, now) {
		t.Error("after a crash over something else")
	}
	if s := life(); s.shield.quarantine.holds(killer, now) || log.Len() > 0 {
		t.Errorf("a start after a clean end: %s", log.String())
	}
	s := crash(killer)
	if !s.shield.quarantine.holds(killer, now) || s.shield.quarantine.holds(killer, now.Add(quarantineFirst)) || !strings.Contains(log.String(), "it is in quarantine") {
		t.Errorf("after two crashes: %s", log.String())
	}
	s = crash(killer)
	if !s.shield.quarantine.holds(killer, now.Add(2*quarantineFirst-1)) || s.shield.quarantine.holds(killer, now.Add(2*quarantineFirst)) {
		t.Errorf("after three: %s", log.String())
	}
	now = now.Add(suspectFor + time.Minute)
	if s := crash(killer); s.shield.quarantine.holds(killer, now) {
		t.Error("an old suspect is still one")
	}
	for name, damaged := range map[string][]byte{"recv-7": []byte("short"), "recv-8": bytes.Repeat([]byte{0xff}, boxSize), suspectsFile: []byte("{")} {
		if err := os.WriteFile(filepath.Join(dir, name), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s := crash(killer); s.shield.quarantine.list.Load() != nil || !strings.Contains(log.String(), "forgotten") {
		t.Errorf("damaged files: %s", log.String())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "recv-*")); len(left) != 1 { // the new one of TCP
		t.Errorf("left behind: %v", left)
	}
}

// TestKilled: what was at hand when a process was killed weighs a third of what was there
// when one ended itself; the words of the latter are kept.
func TestKilled(t *testing.T) {
	now, killer := testClock(), ask(t, "www.demo.test. A")
	for _, c := range []struct {
		lives string // k: killed, c: crashed, o: killed over something else
		want  bool
	}{
		{"kkkkk", false}, {"kkkkkk", true}, {"ckk", false}, {"ckkk", true}, {"kckk", true}, {"cc", true}, {"ooooook", false},
	} {
		dir := t.TempDir()
		var last *Server
		for i, how := range c.lives {
			life, query, words := fmt.Sprint(i), killer, ""
			switch how {
			case 'c':
				words = fmt.Sprintf("fatal error: %d\n\ngoroutine 1", i)
			case 'o':
				query = ask(t, fmt.Sprintf("x%d.demo.test. A", i))
			}
			boxWith(t, dir, life, 3, query)
			if err := os.WriteFile(filepath.Join(dir, wordsPrefix+life), []byte(words), 0o600); err != nil {
				t.Fatal(err)
			}
			var err error
			if last, err = New(Config{Crashes: dir, Now: func() time.Time { return now }}); err != nil {
				t.Fatal(err)
			}
			abandon(t, last.shield.tcp)
			last.CrashOutput().Close()
			kept, err := os.ReadFile(filepath.Join(dir, lastWords))
			if how == 'c' && string(kept) != words {
				t.Errorf("%s: kept %q, %v; want %q", c.lives[:i+1], kept, err, words)
			}
		}
		if got := last.shield.quarantine.holds(killer, now); got != c.want {
			t.Errorf("%s: in quarantine %v, want %v", c.lives, got, c.want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, wordsPrefix+"*")); len(left) != 1 { // its own
			t.Errorf("%s: left behind %v", c.lives, left)
		}
	}
}

// TestQueryOutlivesProcess: a process that is killed while it answers, over UDP or
// TCP, leaves the query; one that is killed between two leaves none. The killer is its own clock,
// which is read for every query that takes the slow path.
func TestQueryOutlivesProcess(t *testing.T) {
	if dir := os.Getenv("RHUMB_TEST_CRASHES"); dir != "" {
		crashingServer(t, dir, os.Getenv("RHUMB_TEST_NETWORK"))
		return
	}
	for _, network := range []string{"udp", "tcp"} {
		killed(t, network)
	}
}

// killed runs a server that is killed over a query, and looks at what is left.
func killed(t *testing.T, network string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestQueryOutlivesProcess$")
	cmd.Env = append(os.Environ(), "RHUMB_TEST_CRASHES="+dir, "RHUMB_TEST_NETWORK="+network)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the process ended with %v:\n%s", err, out)
	}
	var found []string
	err = filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(file)
		for _, q := range atHand(data) {
			found = append(found, glance(q).kind(q).String())
		}
		return err
	})
	if err != nil || len(found) != 1 || found[0] != "death.wild.demo.test. A" {
		t.Errorf("%s: left behind %v, %v", network, found, err)
	}
	words, _ := filepath.Glob(filepath.Join(dir, wordsPrefix+"*"))
	if len(words) != 1 {
		t.Fatalf("%s: files for words %v, want one", network, words)
	}
	if said, err := os.ReadFile(words[0]); err != nil || len(said) > 0 {
		t.Errorf("%s: who was killed said %q, %v", network, said, err)
	}
}

// crashingServer answers two queries, and is killed over the third.
func crashingServer(t *testing.T, dir, network string) {
	var armed atomic.Bool
	s := start(t, Config{Workers: 1, Crashes: dir, Listeners: []Listener{loopback(top, "127.0.0.1:0")}, Now: func() time.Time {
		if armed.Load() && atWork(dir) {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return time.Now()
	}})
	s.SetZones(sources())
	for _, question := range []string{"www.demo.test. A", "x.wild.demo.test. A"} {
		exchange(t, network, s.Addrs()[0], ask(t, question))
	}
	armed.Store(true)
	exchange(t, network, s.Addrs()[0], ask(t, "death.wild.demo.test. A"))
}

// atWork tells whether a query is at hand, by the files.
func atWork(dir string) bool {
	boxes, _ := filepath.Glob(filepath.Join(dir, boxPrefix+"*"))
	for _, name := range boxes {
		if data, err := os.ReadFile(name); err == nil && len(atHand(data)) > 0 {
			return true
		}
	}
	return false
}

// TestKeptOverTCP: each query has a place of its own, and gives it back; beyond the
// last place nothing is kept, and no query waits.
func TestKeptOverTCP(t *testing.T) {
	b, err := openBlackbox(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	left := func() (names []string) {
		data, err := os.ReadFile(b.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range atHand(data) {
			names = append(names, string(q))
		}
		return names
	}
	for i := range batchSize {
		if got := b.keep([]byte(fmt.Sprint("query ", i))); got != i {
			t.Errorf("query %d at %d", i, got)
		}
	}
	if got := b.keep([]byte("one more")); got != -1 || len(left()) != batchSize {
		t.Errorf("one more at %d, %d kept", got, len(left()))
	}
	b.release(-1)
	for _, place := range []int{7, 31} {
		b.release(place)
	}
	if got := left(); len(got) != batchSize-2 || strings.Contains(strings.Join(got, ","), "query 7,") {
		t.Errorf("left %q", got)
	}
	if got := b.keep(bytes.Repeat([]byte("x"), maxTCP)); got != 7 || len(left()[7]) != wire.InSize {
		t.Errorf("a large query at %d", got)
	}
	if (*blackbox)(nil).keep(nil) != -1 {
		t.Error("kept in none")
	}
}
