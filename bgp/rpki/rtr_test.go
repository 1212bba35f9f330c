package rpki

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Messages as RFC 8210, section 5, draws them.
const (
	hexNotify   = "01 00 1234 0000000c 00000005"
	hexResponse = "01 03 1234 00000008"
	hexAdd4     = "01 04 0000 00000014 01 18 18 00 c0000200 0000fbf4"                         // 192.0.2.0/24-24 AS64500
	hexDel4     = "01 04 0000 00000014 00 18 18 00 c0000200 0000fbf4"                         // taken back
	hexAdd6     = "01 06 0000 00000020 01 20 30 00 20010db8000000000000000000000000 0000fbf5" // 2001:db8::/32-48 AS64501
	hexEnd      = "01 07 1234 00000018 00000005 00000e10 00000258 00001c20"
	hexReset    = "01 08 0000 00000008"
	hexKey      = "01 09 0100 00000027 0000000000000000000000000000000000000000 0000fbf4 302a300506032b"
	hexNoData   = "01 0a 0002 00000014 00000000 00000004 6e6f7065"
	hexVersion  = "00 0a 0004 00000010 00000000 00000000"
	hexEnd0     = "00 07 1234 0000000c 00000005"
)

func raw(t testing.TB, texts ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(texts, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadPDU(t *testing.T) {
	tests := []struct {
		name, in string
		want     pdu
	}{
		{"RFC 8210 5.2: serial notify", hexNotify, pdu{version: 1, kind: pduSerialNotify, session: 0x1234, serial: 5}},
		{"RFC 8210 5.5: cache response", hexResponse, pdu{version: 1, kind: pduCacheResponse, session: 0x1234}},
		{"RFC 8210 5.6: IPv4 prefix", hexAdd4, pdu{version: 1, kind: pduIPv4Prefix, announce: true, vrp: vrp("192.0.2.0/24", 24, 64500)}},
		{"RFC 8210 5.6: taken back", hexDel4, pdu{version: 1, kind: pduIPv4Prefix, vrp: vrp("192.0.2.0/24", 24, 64500)}},
		{"RFC 8210 5.7: IPv6 prefix", hexAdd6, pdu{version: 1, kind: pduIPv6Prefix, announce: true, vrp: vrp("2001:db8::/32", 48, 64501)}},
		{"RFC 8210 5.8: end of data", hexEnd, pdu{version: 1, kind: pduEndOfData, session: 0x1234, serial: 5, refresh: 3600, retry: 600, expire: 7200}},
		{"RFC 6810 5.8: end of data", hexEnd0, pdu{kind: pduEndOfData, session: 0x1234, serial: 5}},
		{"RFC 8210 5.9: cache reset", hexReset, pdu{version: 1, kind: pduCacheReset}},
		{"RFC 8210 5.10: router key", hexKey, pdu{version: 1, kind: pduRouterKey, session: 0x0100}},
		{"RFC 8210 5.11: error report", hexNoData, pdu{version: 1, kind: pduErrorReport, session: 2, text: "nope"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := readPDU(bytes.NewReader(raw(t, tt.in))); err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestReadPDURefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                "",
		"a header cut short":     "01 03 1234",
		"a body cut short":       "01 07 1234 00000018 00000005",
		"a version of tomorrow":  "07 03 1234 00000008",
		"an unknown type":        "01 0c 0000 00000008",
		"too short for a header": "01 0a 0000 00000007",
		"a wrong length":         "01 03 1234 0000000c 00000000",
		"longer than we read":    "01 0a 0000 00010001",
		"prefix too long":        "01 04 0000 00000014 01 21 21 00 c0000200 0000fbf4",
		"max below length":       "01 04 0000 00000014 01 18 17 00 c0000200 0000fbf4",
		"host bits":              "01 04 0000 00000014 01 18 18 00 c0000201 0000fbf4",
		"a report cut short":     "01 0a 0002 0000000b 000000",
		"a report that lies":     "01 0a 0002 00000010 ffffffff 00000000",
		"a text that lies":       "01 0a 0002 00000010 00000000 00000009",
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := readPDU(bytes.NewReader(raw(t, in))); err == nil {
				t.Errorf("read as %+v", p)
			}
		})
	}
}

func FuzzReadPDU(f *testing.F) {
	for _, s := range []string{hexNotify, hexResponse, hexAdd4, hexDel4, hexAdd6, hexEnd, hexReset, hexKey, hexNoData, hexVersion, hexEnd0} {
		f.Add(raw(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			p, err := readPDU(r)
			if err != nil {
				return
			}
			if (p.kind == pduIPv4Prefix || p.kind == pduIPv6Prefix) && !p.vrp.valid() {
				t.Fatalf("%+v cannot be", p.vrp)
			}
		}
	})
}

// cache is a peer which answers each connection by a script: what it is asked
// (hex, without blanks), and what it says.
func cache(t *testing.T, scripts ...[][2]string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for _, script := range scripts {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			for _, line := range script {
				want := raw(t, line[0])
				got := make([]byte, len(want))
				conn.SetDeadline(time.Now().Add(time.Minute))
				if n, err := io.ReadFull(conn, got); len(want) > 0 && (err != nil || !bytes.Equal(got[:n], want)) {
					t.Errorf("asked %x, want %x (%v)", got[:n], want, err)
				}
				conn.Write(raw(t, line[1]))
			}
			if script[len(script)-1][1] == "" { // stays until the client goes
				conn.Read(make([]byte, 1))
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

const (
	askAll   = "01 02 0000 00000008"
	askAll0  = "00 02 0000 00000008"
	askNewer = "01 01 1234 0000000c 00000005"
)

// eventually waits for a condition which a goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in a minute not: %s", what)
		}
	}
}

func run(t *testing.T, s *Source) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestTalk: everything, a notice, a difference, a reset, and everything again.
func TestTalk(t *testing.T) {
	end := func(serial string) string { return "01 07 1234 00000018" + serial + "00000e10 00000258 00001c20" }
	addr := cache(t, [][2]string{
		{askAll, hexResponse + hexAdd4 + hexKey + end("00000005") + hexNotify},
		{askNewer, hexResponse + hexDel4 + hexAdd6 + end("00000006") + hexNotify},
		{"01 01 1234 0000000c 00000006", hexReset},
		{askAll, hexResponse + hexAdd4 + hexAdd6 + end("00000007")},
		{"", ""},
	})
	s := NewSource(Config{Caches: []string{addr}})
	run(t, s)
	eventually(t, "both prefixes", func() bool {
		tb := s.table.Load()
		return tb != nil && tb.Len() == 2
	})
	tb := s.table.Load()
	if tb.Expire != 2*time.Hour {
		t.Errorf("good for %v, want 2h by the cache's word", tb.Expire)
	}
	if got := s.Judge(netip.MustParsePrefix("192.0.2.0/24"), 64500, time.Now().Add(3*time.Hour)); !got.Stale {
		t.Errorf("3 h later: %v, want stale", got)
	}
}

// TestTalkOlderVersion: a cache of RFC 6810 is asked again in its own version.
func TestTalkOlderVersion(t *testing.T) {
	zero := func(s string) string { return "00" + s[2:] }
	addr := cache(t, [][2]string{{askAll, hexVersion}},
		[][2]string{{askAll0, zero(hexResponse) + zero(hexAdd4) + hexEnd0}, {"", ""}})
	s := NewSource(Config{Caches: []string{addr}})
	run(t, s)
	eventually(t, "one prefix", func() bool { n, _ := s.Data(time.Now()); return n == 1 })
}

// TestTalkNextCache: one that has nothing, or lies, or is not there, is left for the next.
func TestTalkNextCache(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	s := NewSource(Config{Every: time.Millisecond, Caches: []string{gone,
		cache(t, [][2]string{{askAll, hexNoData}}),
		cache(t, [][2]string{{askAll, hexResponse + hexAdd4 + hexAdd4}}),
		cache(t, [][2]string{{askAll, hexResponse + hexDel4}}),
		cache(t, [][2]string{{askAll, hexAdd4}}),
		cache(t, [][2]string{{askAll, hexReset}}),
		cache(t, [][2]string{{askAll, hexResponse + hexAdd4 + hexAdd6}}), // no end
		cache(t, [][2]string{{askAll, hexResponse + hexAdd6 + hexEnd}, {"", ""}}),
	}})
	run(t, s)
	eventually(t, "the last cache's prefix", func() bool { n, _ := s.Data(time.Now()); return n == 1 })
	if got := s.Judge(netip.MustParsePrefix("192.0.2.0/24"), 64500, time.Now()); got.State != NotFound {
		t.Errorf("half an answer was adopted: %v", got)
	}
}

func TestErrorOfVersion(t *testing.T) {
	if _, err := readPDU(bytes.NewReader(raw(t, "07 03 1234 00000008"))); !errors.Is(err, errVersion) {
		t.Errorf("%v, want another version", err)
	}
}
