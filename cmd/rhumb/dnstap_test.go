package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns"
	"rhumb/authdns/tap"
	"rhumb/placement"
)

// tapCollector is somebody else's end of Frame Streams, written from its description:
// it takes one stream, and keeps it as libfstrm's programs keep a file.
func tapCollector(l net.Listener) ([]byte, error) {
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	const content = "protobuf:dnstap.Dnstap"
	control := func() (uint32, []byte, error) {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return 0, nil, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[4:]))
		_, err := io.ReadFull(c, body)
		return binary.BigEndian.Uint32(body), append(head[:], body...), err
	}
	if kind, _, err := control(); err != nil || kind != 4 { // READY
		return nil, err
	}
	accept := []byte{0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 22}
	if _, err := c.Write(append(accept, content...)); err != nil {
		return nil, err
	}
	kind, out, err := control()
	if err != nil || kind != 2 { // START
		return nil, err
	}
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return nil, err
		}
		out = append(out, size[:]...)
		n := binary.BigEndian.Uint32(size[:])
		if n == 0 { // STOP: its length and its type
			var stop [8]byte
			if _, err := io.ReadFull(c, stop[:]); err != nil {
				return nil, err
			}
			_, err := c.Write([]byte{0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5}) // FINISH
			return append(out, stop[:]...), err
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
}

// tappedServer serves a zone on loopback, and tells a collector.
func tappedServer(t *testing.T, socket string) (addr netip.AddrPort, told *tap.Tap, run func(context.Context) error) {
	t.Helper()
	told = tap.New(tap.Config{Network: "unix", Address: socket, Identity: "ns1", Version: "rhumb test", Retry: 10 * time.Millisecond})
	s, err := authdns.New(authdns.Config{Site: "ams1", Node: "ns1", Workers: 1, Listeners: []authdns.Listener{{Level: placement.LowLevel, Addr: netip.MustParseAddrPort("127.0.0.1:0")}},
		Tap: told})
	if err != nil {
		t.Fatal(err)
	}
	zone := "$ORIGIN demo.test.\n$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.10\n"
	if errs := s.SetZones([]authdns.Source{{Zone: placement.Zone{Name: "demo.test.", Level: placement.LowLevel}, Data: []byte(zone)}}); errs != nil {
		t.Fatal(errs)
	}
	return s.Addrs()[0], told, s.Run
}

// askTapped asks over UDP so often, and once over TCP.
func askTapped(t *testing.T, addr netip.AddrPort, n int) {
	t.Helper()
	for i := range n + 1 {
		c := &dns.Client{Timeout: 20 * time.Second}
		if i == n {
			c.Net = "tcp"
		}
		q := new(dns.Msg).SetQuestion([]string{"www.demo.test.", "nix.demo.test."}[i%2], dns.TypeA)
		if _, _, err := c.Exchange(q, addr.String()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDnstapReadBack: what the server tells a collector is what `rhumb shadow` reads, and
// the same server answers so again.
func TestDnstapReadBack(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "tap.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, told, run := tappedServer(t, l.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	var file []byte
	var served error
	all.Go(func() { file, served = tapCollector(l) })
	all.Go(func() { run(ctx) })
	eventually(t, "the collector listens", func() bool { _, _, listens := told.Counts(); return listens })
	askTapped(t, addr, 6)
	cancel()
	all.Wait()
	if served != nil {
		t.Fatalf("collector: %v", served)
	}
	for _, want := range []string{"ns1", "rhumb test", "\x18\x01", "\x18\x02"} { // identity, version, UDP, TCP
		if !bytes.Contains(file, []byte(want)) {
			t.Errorf("no %q in what was told", want)
		}
	}
	recorded := filepath.Join(dir, "tap.fstrm")
	if err := os.WriteFile(recorded, file, 0o644); err != nil {
		t.Fatal(err)
	}
	again, _, run := tappedServer(t, filepath.Join(dir, "nobody.sock"))
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	all.Go(func() { run(ctx) })
	code, out, errs := cli(t.Context(), "shadow", "--dnstap", recorded, "--ours", again.String())
	if code != exitOK || !strings.Contains(out, "6 recorded, 6 compared") || !strings.Contains(out, "otherwise 0 of 6") {
		t.Errorf("shadow: exit %d\n%s%s", code, out, errs)
	}
	cancel()
	all.Wait()
}
