package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// fakePrimary answers with our own desk, over pipes: a primary whose zone, mood
// and health the test sets.
type fakePrimary struct {
	t    *testing.T
	desk *Desk

	mu     sync.Mutex
	zone   *list
	down   bool
	noIXFR bool
	harm   func([]byte) []byte // of each message
	asked  []string
}

var primaryAddr = [1]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}

func newPrimary(t *testing.T) *fakePrimary {
	return &fakePrimary{t: t, desk: &Desk{Keys: ring(t), Out: &Out{Max: 4}, Now: time.Now}}
}

func (p *fakePrimary) set(z *list) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.zone = z
	p.desk.Out.Set([]Outgoing{{Name: "demo.test.", Zone: z, Rules: Rules{Keys: []string{"one.test."}}, Diff: z.diff}})
}

func (p *fakePrimary) connect(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		p.asked = append(p.asked, "down")
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	go p.serve(theirs)
	return ours, nil
}

// serve answers the questions of a connection.
func (p *fakePrimary) serve(c net.Conn) {
	defer c.Close()
	for {
		length := make([]byte, 2)
		if _, err := io.ReadFull(c, length); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint16(length))
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		r, ok := p.desk.Read(msg)
		if !ok {
			p.t.Errorf("a primary is asked %x", msg)
			return
		}
		p.mu.Lock()
		p.asked = append(p.asked, dns.Type(r.q.typ).String())
		zone, noIXFR, harm := p.zone, p.noIXFR, p.harm
		p.mu.Unlock()
		write := func(b []byte, _ time.Duration) error {
			if harm != nil {
				b = harm(b)
			}
			_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			return err
		}
		buf := make([]byte, dns.MaxMsgSize)
		switch {
		case r.q.typ == dns.TypeSOA:
			m := newPacker(r, buf)
			m.add(zone.soa)
			write(r.seal(m.close()), 0)
		case r.q.typ == dns.TypeIXFR && noIXFR:
			write(buf[:r.reply(buf, dns.RcodeNotImplemented)], 0)
		default:
			if _, err := p.desk.Stream(r, netip.MustParseAddr("192.0.2.2"), buf, write); err != nil {
				return
			}
		}
	}
}

// took returns what was asked since the last time.
func (p *fakePrimary) took() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.asked, " ")
	p.asked = nil
	return out
}

func (p *fakePrimary) with(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// checkText accepts what has no owner with "wrong" in it.
func checkText(_ string, text []byte) ([]string, error) {
	c, err := readContents("demo.test.", text)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, rr := range c.rrs {
		if strings.HasPrefix(rr.Header().Name, "wrong") {
			return nil, fmt.Errorf("%s is wrong", rr.Header().Name)
		}
		names = append(names, rr.Header().Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// node is a secondary in a bubble.
type node struct {
	in      *In
	changes int
	log     strings.Builder
	stop    func()
}

func startNode(t *testing.T, p *fakePrimary, dir string, keep float64) *node {
	t.Helper()
	n := &node{}
	n.in = NewIn(Config{Dir: dir, Keys: ring(t), Check: checkText, Connect: p.connect,
		Changed: func() { n.changes++ }, Log: slog.New(slog.NewTextHandler(&n.log, nil))})
	n.in.Set([]Incoming{{Name: "demo.test.", Primaries: primaryAddr[:], Key: "one.test", KeepNames: keep}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.in.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return n
}

// is states what is held: serial, and a word that why it is not served, or what is
// wrong, must contain.
func (n *node) is(t *testing.T, step string, serial uint32, unserved, fault string) {
	t.Helper()
	h, ok := n.in.Held("demo.test.")
	same := func(got, want string) bool { return (got == "") == (want == "") && strings.Contains(got, want) }
	if !ok || h.Serial != serial || !same(h.Unserved, unserved) || !same(h.Fault, fault) {
		t.Errorf("%s: held %t serial %d, unserved %q, fault %q; want %d, %q, %q\n%s", step, ok, h.Serial, h.Unserved, h.Fault, serial, unserved, fault, n.log.String())
	}
}

// TestSecondary: the life of a copy, by a clock that is ours.
func TestSecondary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t)
		dir := t.TempDir()
		lines := hosts(40)
		p.set(makeZone(t, 5, lines...))
		p.down = true
		n := startNode(t, p, dir, 0.7)
		synctest.Wait()
		n.is(t, "the primary is away", 0, "not received", "connection refused")
		p.with(func() { p.down = false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n.is(t, "it is back", 5, "", "")
		p.took()

		time.Sleep(time.Hour)
		synctest.Wait()
		if got := p.took(); got != "SOA" {
			t.Errorf("after a refresh it asked %q", got)
		}
		p.set(makeZone(t, 6, lines[1:]...))
		if rcode := n.notify(t, 6, "one.test"); rcode != dns.RcodeSuccess {
			t.Errorf("NOTIFY answered with %s", rcodeName(rcode))
		}
		synctest.Wait()
		n.is(t, "notified", 6, "", "")
		if got := p.took(); got != "SOA IXFR" {
			t.Errorf("after a NOTIFY it asked %q", got)
		}
		for key, want := range map[string]int{"": dns.RcodeRefused, "two.test": dns.RcodeRefused} {
			if rcode := n.notify(t, 99, key); rcode != want {
				t.Errorf("NOTIFY signed with %q answered with %s", key, rcodeName(rcode))
			}
		}
		synctest.Wait()
		if got := p.took(); got != "" {
			t.Errorf("a NOTIFY from anybody makes it ask %q", got)
		}

		p.with(func() { p.noIXFR = true })
		p.set(makeZone(t, 7, lines[2:]...))
		n.in.Refresh("demo.test")
		synctest.Wait()
		n.is(t, "a primary without IXFR", 7, "", "")
		if got := p.took(); got != "SOA IXFR AXFR" {
			t.Errorf("it asked %q", got)
		}

		p.set(makeZone(t, 8, append(lines, "wrong.demo.test. 300 IN A 192.0.2.9")...))
		n.in.Refresh("demo.test")
		synctest.Wait()
		n.is(t, "a version that does not pass", 7, "", "serial 8 is wrong")
		p.set(makeZone(t, 9, lines[30:]...))
		n.in.Refresh("demo.test")
		synctest.Wait()
		n.is(t, "a version that lost 28 of 40 names", 7, "", "rule shrink")
		p.set(makeZone(t, 6, lines...))
		n.in.Refresh("demo.test")
		synctest.Wait()
		n.is(t, "an older version", 7, "", "older than 7")
		p.set(makeZone(t, 10, lines...))
		p.with(func() { p.harm = func(b []byte) []byte { b[len(b)-8] ^= 1; return b } })
		n.in.Refresh("demo.test")
		synctest.Wait()
		n.is(t, "a signature that does not hold", 7, "", "signature does not hold")

		p.with(func() { p.harm, p.down = nil, true })
		before := n.changes
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		n.is(t, "a primary away for 23 hours", 7, "", "connection refused")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		n.is(t, "and for longer than expire", 7, "expired", "connection refused")
		if n.changes != before+1 || strings.Count(n.log.String(), "zone expired") != 1 {
			t.Errorf("told %d times, log:\n%s", n.changes-before, n.log.String())
		}
		p.with(func() { p.down = false })
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		n.is(t, "back", 10, "", "")
		n.stop()

		p.with(func() { p.down = true })
		n = startNode(t, p, dir, 0.7)
		synctest.Wait()
		n.is(t, "a start from disk", 10, "", "connection refused")
		n.stop()
		time.Sleep(25 * time.Hour)
		n = startNode(t, p, dir, 0.7)
		synctest.Wait()
		n.is(t, "a start long after", 10, "expired", "connection refused")
		n.stop()

		file := filepath.Join(dir, "demo.test.zone")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, "x IN A 192.0.2.1\n"...), 0o644); err != nil {
			t.Fatal(err)
		}
		n = startNode(t, p, dir, 0.7)
		synctest.Wait()
		n.is(t, "a start from a damaged file", 0, "not received", "connection refused")
		n.stop()
	})
}

// notify hands a NOTIFY in, from an address which is no primary's.
func (n *node) notify(t *testing.T, serial uint32, key string) int {
	t.Helper()
	m := new(dns.Msg)
	m.SetNotify("demo.test.")
	m.Answer = []dns.RR{makeZone(t, serial).soa}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		msg = (&chain{key: ring(t).Find(key), now: time.Now}).sign(msg)
	}
	d := &Desk{Keys: ring(t), In: n.in, Out: &Out{}, Now: time.Now}
	r, ok := d.Read(msg)
	if !ok || r.fault != 0 {
		t.Fatalf("NOTIFY not read: %t, %d", ok, r.fault)
	}
	out := make([]byte, 1232)
	if size, ok := d.Datagram(r, netip.MustParseAddr("198.51.100.1"), out); !ok || size < headerLen {
		t.Fatal("NOTIFY not answered")
	}
	return rcodeOf(out)
}

// TestMisfitAsksAgain: where a difference does not fit, the whole zone is taken.
func TestMisfitAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t)
		lines := hosts(40)
		p.set(makeZone(t, 5, lines...))
		n := startNode(t, p, t.TempDir(), 0)
		synctest.Wait()
		// Another zone of serial 5: what comes as a difference from there is not from ours.
		p.desk.Out = &Out{Max: 4}
		p.set(makeZone(t, 5, append(lines, "extra.demo.test. 300 IN A 192.0.2.9")...))
		p.set(makeZone(t, 6, lines[3:]...))
		p.took()
		n.in.Refresh("demo.test.")
		synctest.Wait()
		n.is(t, "after all", 6, "", "")
		h, _ := n.in.Held("demo.test.")
		if want := makeZone(t, 6, lines[3:]...).text(); string(h.Data) != want {
			t.Errorf("held\n%s\nwant\n%s", h.Data, want)
		}
		n.stop()
	})
}

// TestStalledPrimary: a primary that accepts and says nothing is given up.
func TestStalledPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := func(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		}
		in := NewIn(Config{Dir: t.TempDir(), Keys: ring(t), Check: checkText, Changed: func() {}, Connect: stalled})
		in.Set([]Incoming{{Name: "demo.test.", Primaries: primaryAddr[:]}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- in.Run(ctx) }()
		time.Sleep(readTimeout + time.Second)
		synctest.Wait()
		if h, _ := in.Held("demo.test."); !strings.Contains(h.Fault, "timeout") {
			t.Errorf("fault %q, want a timeout", h.Fault)
		}
		cancel()
		<-done
	})
}
