package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// longHeader builds the beginning of a QUIC packet with a long header.
func longHeader(version uint32, kind byte, cid string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0xc0 | kind}, version)
	b = append(append(b, byte(len(cid))), cid...)
	return append(b, 0, 0, 0)
}

func testQUIC() *QUIC {
	return &QUIC{
		VIPs:      map[netip.AddrPort]QUICVIP{flow4(1).VIP: {Act, ByConnectionID}},
		ServerIDs: map[string][]byte{"a": {0x0a, 0x01}, "b": {0x0b, 0x01}},
	}
}

func TestQUICHeaders(t *testing.T) {
	for _, e := range []struct {
		name   string
		p      []byte
		begins bool
		site   string
	}{
		{"RFC 9000 17.2.2 Initial, random id", longHeader(quicV1, 0x00, "\x01random!"), true, ""},
		{"RFC 9000 17.2.2 Initial, the server's id", longHeader(quicV1, 0x00, "\x01\x0b\x01abcd"), true, "b"},
		{"RFC 9000 17.2.3 0-RTT", longHeader(quicV1, 0x10, "\x01random!"), false, ""},
		{"RFC 9000 17.2.4 Handshake", longHeader(quicV1, 0x20, "\x21\x0b\x01abcd"), false, "b"},
		{"RFC 9369 3.2 Initial of version 2", longHeader(quicV2, 0x10, "\x01random!"), true, ""},
		{"RFC 9369 3.2 Retry of version 2", longHeader(quicV2, 0x00, "\x01random!"), false, ""},
		{"RFC 8999 5.1 a version to come", longHeader(0x0a1a2a3a, 0x20, "\x01random!"), true, ""},
		{"RFC 9000 17.3.1 short header", []byte("\x41\x1f\x0a\x01abcdefgh"), false, "a"},
		{"no server's id", []byte("\x41\xff\x0a\x01abcdefgh"), false, ""},
		{"unknown server's id", []byte("\x41\x1f\x0a\x02abcdefgh"), false, ""},
		{"short header cut", []byte("\x41\x1f\x0a"), false, ""},
		{"long header cut", longHeader(quicV1, 0x20, "\x21\x0b\x01abcd")[:9], false, ""},
		{"RFC 9000 17.2 id of 21 octets", longHeader(quicV1, 0x20, "\x01\x0b\x01abcdefghijklmnopqr"), false, ""},
		{"id too short for a server's", longHeader(quicV1, 0x20, "\x01\x0b"), false, ""},
		{"empty", nil, false, ""},
	} {
		t.Run(e.name, func(t *testing.T) {
			if got := startsConnection(e.p); got != e.begins {
				t.Errorf("begins a connection: %v, want %v", got, e.begins)
			}
			if got := testQUIC().siteOf(e.p); got != e.site {
				t.Errorf("of site %q, want %q", got, e.site)
			}
		})
	}
}

// FuzzQUICHeader holds that no datagram makes us read beyond it, and that an id
// which is found stands where the header says.
func FuzzQUICHeader(f *testing.F) {
	f.Add(longHeader(quicV1, 0x20, "\x21\x0b\x01abcd"))
	f.Add([]byte("\x41\x1f\x0a\x01abcdefgh"))
	f.Add(longHeader(quicV2, 0x10, ""))
	f.Fuzz(func(t *testing.T, p []byte) {
		q := testQUIC()
		site := q.siteOf(p[:len(p):len(p)])
		_ = startsConnection(p)
		if site == "" {
			return
		}
		at := 2
		if p[0]&quicLong != 0 {
			at = 7
		}
		if !bytes.Equal(p[at:at+2], q.ServerIDs[site]) {
			t.Fatalf("% x is said to be of %s", p, site)
		}
	})
}

func TestSetQUICRefuses(t *testing.T) {
	for name, change := range map[string]func(*QUIC){
		"no port":             func(q *QUIC) { q.VIPs[netip.AddrPort{}] = QUICVIP{} },
		"no own id":           func(q *QUIC) { delete(q.ServerIDs, "a") },
		"ids of two lengths":  func(q *QUIC) { q.ServerIDs["b"] = []byte{1} },
		"one id twice":        func(q *QUIC) { q.ServerIDs["b"] = q.ServerIDs["a"] },
		"empty id":            func(q *QUIC) { q.ServerIDs = map[string][]byte{"a": {}} },
		"id without a nonce":  func(q *QUIC) { q.ServerIDs = map[string][]byte{"a": make([]byte, 16)} },
		"mapped IPv4 address": func(q *QUIC) { q.VIPs[netip.MustParseAddrPort("[::ffff:192.0.2.1]:443")] = QUICVIP{} },
	} {
		f := testForwarder(t, nil)
		if err := f.SetQUIC(*testQUIC()); err != nil {
			t.Fatal(err)
		}
		bad := testQUIC()
		change(bad)
		if err := f.SetQUIC(*bad); err == nil || len(f.quic.Load().ServerIDs) != 2 {
			t.Errorf("%s: %v, and the good one is left: %v", name, err, f.quic.Load())
		}
	}
}

// TestRouted follows what a packet says of its owner, whatever was believed.
func TestRouted(t *testing.T) {
	b := newBench("a", "b")
	routed := func(site, p string) string {
		return show(b.owners.routed(b.now, flow4(1), site, []byte(p), false, nil))
	}
	if got := routed("a", "one"); got != "foreign a, tunnel a one" {
		t.Errorf("first: %s", got)
	}
	if got := routed("b", "two"); got != "tunnel b two" {
		t.Errorf("of another site: %s", got)
	}
	b.script(t, flow4(2), "packet one -> ask a, ask b")
	if got := show(b.owners.routed(b.now, flow4(2), "b", []byte("two"), false, nil)); got != "tunnel b one, foreign b, tunnel b two" {
		t.Errorf("while others are asked: %s", got)
	}
	if b.counts[byCID] != 3 || b.heldNow != 0 || len(b.owners.asking) != 0 {
		t.Errorf("%v, %d packets wait, %d flows are asked about", b.counts, b.heldNow, len(b.owners.asking))
	}
}

func TestCookiesSent(t *testing.T) {
	text := "TcpExt: SyncookiesSent SyncookiesRecv\nTcpExt: 7 3\nIpExt: InNoRoutes\nIpExt: 9\n"
	if n := cookiesSent(text); n != 7 {
		t.Errorf("%d, want 7", n)
	}
	for _, bad := range []string{"", "TcpExt: SyncookiesSent", "TcpExt: SyncookiesSent\nTcpExt:\n", "TcpExt: A\nTcpExt: 1\n", "TcpExt: SyncookiesSent\nTcpExt: x\n"} {
		if n := cookiesSent(bad); n != 0 {
			t.Errorf("%q: %d", bad, n)
		}
	}
	var c cookieWatch
	at := time.Unix(1000, 0)
	for i, e := range []struct {
		after time.Duration
		count uint64
		want  bool
	}{{0, 100, false}, {time.Second, 100, false}, {2 * time.Second, 101, true}, {6 * time.Second, 101, true}, {7 * time.Second, 101, false}, {8 * time.Second, 0, true}} {
		if got := c.note(at.Add(e.after), e.count); got != e.want {
			t.Errorf("step %d: in use %v, want %v", i, got, e.want)
		}
	}
}

// FuzzCookiesSent reads anything for a kernel's table.
func FuzzCookiesSent(f *testing.F) {
	f.Add("TcpExt: SyncookiesSent SyncookiesRecv\nTcpExt: 7 3\n")
	f.Fuzz(func(_ *testing.T, text string) { _ = cookiesSent(text) })
}

func TestFlowKeys(t *testing.T) {
	for _, f := range []Flow{flow4(1000), flow6(65535)} {
		key := flowKey(f)
		if back, ok := keyFlow(key); !ok || back != f {
			t.Errorf("%v becomes %v, %v", f, back, ok)
		}
		if r := getElement(f, 7); !bytes.Contains(r, key) || len(r)%4 != 0 || int(binary.NativeEndian.Uint32(r)) != len(r) {
			t.Errorf("%v: request % x", f, r)
		}
	}
	for n := range 50 {
		if _, ok := keyFlow(make([]byte, n)); ok != (n == 16 || n == 40) {
			t.Errorf("a key of %d octets: %v", n, ok)
		}
	}
}

func TestElementAnswer(t *testing.T) {
	found := uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM)
	for _, e := range []struct {
		name  string
		b     []byte
		found bool
		err   error
	}{
		{"found", message(found, 1, make([]byte, 40)), true, nil},
		{"none", message(unix.NLMSG_ERROR, 1, errnoBody(unix.ENOENT)), false, nil},
		{"refused", message(unix.NLMSG_ERROR, 1, errnoBody(unix.EPERM)), false, unix.EPERM},
		{"error cut", message(unix.NLMSG_ERROR, 1, nil), false, errShort},
	} {
		if got, err := elementAnswer(e.b); got != e.found || !errors.Is(err, e.err) {
			t.Errorf("%s: %v, %v", e.name, got, err)
		}
	}
	if _, err := elementAnswer(message(unix.NLMSG_DONE, 1, nil)); err == nil {
		t.Error("another type of reply was taken")
	}
}

// TestArrivals sums up sessions that come by tunnel, and forgets them.
func TestArrivals(t *testing.T) {
	f := testForwarder(t, nil, testPeer("b"))
	at := time.Unix(1000, 0)
	f.arrivals.note(at, session{protoTCP, flow4(1)}, 100)
	f.arrivals.note(at.Add(time.Second), session{protoUDP, flow4(1)}, 10)
	f.arrivals.note(at.Add(50*time.Second), session{protoTCP, flow4(1)}, 1)
	if got, want := f.Arrivals(), (Arrivals{Flows: 2, Oldest: at, Packets: 3, Bytes: 111}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	f.arrivals.sweep(at.Add(61 * time.Second))
	if got := f.Arrivals(); got.Flows != 1 || got.Oldest != at || got.Bytes != 111 {
		t.Errorf("after a minute: %+v", got)
	}
	f.arrivals.sweep(at.Add(3 * time.Minute))
	if got := f.Arrivals(); got.Flows != 0 || !got.Oldest.IsZero() {
		t.Errorf("after three: %+v", got)
	}
}
