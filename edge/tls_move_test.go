package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "unsafe" // for linkname

	"golang.org/x/sys/unix"

	"rhumb/edge/content"
	"rhumb/edge/frame"
	"rhumb/edge/seal"
	"rhumb/edge/tcprepair"
)

// The suites which crypto/tls offers; it lets nobody choose otherwise.
//
//go:linkname offered13 crypto/tls.defaultCipherSuitesTLS13
var offered13 []uint16

//go:linkname offered13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var offered13NoAES []uint16

var suites13 = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}

func speakOnly(t testing.TB, suite uint16) {
	a, b := offered13, offered13NoAES
	offered13, offered13NoAES = []uint16{suite}, []uint16{suite}
	t.Cleanup(func() { offered13, offered13NoAES = a, b })
}

// bridge is the client's network. It counts what the client was given, and at
// one count calls move, which may change the server behind it.
type bridge struct {
	net.Conn
	down, stopAt int64
	move         func()
}

func (b *bridge) Read(p []byte) (int, error) {
	if b.move != nil && b.down == b.stopAt {
		b.move()
		b.move = nil
	}
	if b.move != nil {
		p = p[:min(int64(len(p)), b.stopAt-b.down)]
	}
	n, err := b.Conn.Read(p)
	b.down += int64(n)
	return n, err
}

// inq counts the bytes that wait to be read.
func inq(c *net.TCPConn) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); e != nil {
		return 0, e
	}
	return n, err
}

// dump takes the one session of a site as a hand-off does, without the kernel's
// help: the client has delivered bytes of the turn. The sequence numbers are
// such that they wrap within the response.
func (s *tlsSite) dump(t testing.TB, delivered int64, from net.Conn) []byte {
	t.Helper()
	if from != nil { // what the client sent is in our kernel, or was read
		until(t, "the client's bytes", func() bool {
			n, err := tcprepair.Unacked(from.(*net.TCPConn))
			return n == 0 && err == nil
		})
	}
	x := s.only(t, func(x *session) bool { return x.cover != nil && x.claim() })
	until(t, "session at its gate", x.stop)
	x.conn.SetDeadline(time.Time{})
	n, err := inq(x.conn)
	input := make([]byte, n)
	if err == nil {
		_, err = io.ReadFull(x.conn, input)
	}
	if err != nil {
		x.gate.resume(false)
		t.Fatal(err)
	}
	const base = 1<<32 - 5000
	una := uint32(base + delivered)
	o, err := x.offer(tcprepair.State{SndUna: una, SndNxt: una, WriteSeq: uint32(base + x.turn.Load().off.Load()), RcvNxt: 77, Input: input}, 1)
	x.gate.resume(false)
	s.gone = x
	if err != nil {
		t.Fatal(err)
	}
	return frame.AppendOffer(nil, o)
}

// other makes the site that takes over, with its own copy of the files.
func (s *tlsSite) other(t testing.TB, export string, files map[string][]byte) *Agent {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		put(t, filepath.Join(dir, "root", name), b)
	}
	b, _ := newTLSAgent(t, dir, export, netip.MustParseAddrPort(s.addr))
	for name := range files {
		b.view.Load().services[0].source.Ahead("/" + name)
	}
	return b
}

// serveHere goes on with a session over a connection of its own and returns the
// client's end.
func serveHere(t testing.TB, a *Agent, s *session) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	s.conn = here.(*net.TCPConn)
	ctx, cancel := context.WithCancel(t.Context())
	a.run(ctx, s)
	t.Cleanup(func() {
		cancel()
		c.Close()
		a.wg.Wait()
	})
	return c
}

func admitted(t testing.TB, a *Agent, offer []byte) (*session, error) {
	t.Helper()
	o, err := frame.DecodeOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	return a.admit(o)
}

// TestSealedSessionMoves: cut anywhere, within a record and its header too, in
// the first response or in a later one, the client reads every byte right at
// the other site, and goes on there with its own record numbers.
func TestSealedSessionMoves(t *testing.T) {
	// The kernel takes a part of it only (see dial), so a cut in the first fifth
	// meets a session that still writes.
	film := random(512 << 10)
	files := map[string][]byte{"film.mp4": film}
	for _, suite := range suites13 {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			speakOnly(t, suite)
			a := newTLSSite(t, ExportGroup, files)
			b := a.other(t, ExportGroup, files)
			for i := range 6 {
				if suite != suites13[0] && i%2 == 0 {
					continue // the odd ones have all there is
				}
				way := &bridge{}
				c := a.dial(t, &tls.Config{}, func(raw net.Conn) net.Conn { way.Conn = raw; return way })
				r := bufio.NewReaderSize(c, 1000)
				for range i % 3 { // earlier responses: the numbers do not begin at 0
					if _, got := get(t, c, r, ""); !bytes.Equal(got, film) {
						t.Fatal("differs before the move")
					}
				}
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				at := int64(rand.IntN(len(film) / 5))
				if i == 1 {
					at = 0
				}
				way.stopAt = way.down + at
				last := a.only(t, func(x *session) bool { return x.cover != nil }).turn.Load()
				way.move = func() {
					a.only(t, func(x *session) bool { return x.turn.Load() != last }) // it has the request
					x, err := admitted(t, b, a.dump(t, at, way.Conn))
					if err != nil {
						t.Fatal(err)
					}
					way.Conn = serveHere(t, b, x)
				}
				// Two requests at once: the second waits at a's kernel, or in a's input.
				io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
				if i >= 3 {
					io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\nRange: bytes=5-99\r\n\r\n")
				}
				if _, got := answerOf(t, r); !bytes.Equal(got, film) {
					t.Fatalf("cut at %d: differs", at)
				}
				if i >= 3 {
					if _, got := answerOf(t, r); !bytes.Equal(got, film[5:100]) {
						t.Fatalf("cut at %d: the waiting request's answer differs", at)
					}
				}
				if _, got := get(t, c, r, "Connection: close\r\n"); !bytes.Equal(got, film) {
					t.Fatalf("cut at %d: the next response differs", at)
				}
				if _, err := r.ReadByte(); err != io.EOF || way.move != nil {
					t.Fatalf("the end is %v, moved: %t", err, way.move == nil)
				}
				a.wait(t)
				if a.gone.cover.write != (seal.Secret{}) || a.gone.cover.read != (seal.Secret{}) {
					t.Fatal("the giver keeps the secrets")
				}
				c.Close()
				way.Close()
			}
		})
	}
}

// TestSealedSessionRests: one that waits for a request, with a part of it in,
// moves as well.
func TestSealedSessionRests(t *testing.T) {
	film := random(20_000)
	files := map[string][]byte{"film.mp4": film}
	a := newTLSSite(t, ExportGroup, files)
	b := a.other(t, ExportGroup, files)
	way := &bridge{}
	c := a.dial(t, &tls.Config{}, func(raw net.Conn) net.Conn { way.Conn = raw; return way })
	r := bufio.NewReader(c)
	before := way.down
	for range 2 {
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		before = way.down
		get(t, c, r, "")
	}
	io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHo")
	x, err := admitted(t, b, a.dump(t, way.down-before, way.Conn))
	if err != nil {
		t.Fatal(err)
	}
	way.Conn = serveHere(t, b, x)
	io.WriteString(c, "st: x\r\n\r\n")
	if _, got := answerOf(t, r); !bytes.Equal(got, film) {
		t.Error("differs")
	}
}

// TestSealedRecord: what a Backup is told of a session over TLS suffices to make
// its response's wire bytes, and says so when it does not.
func TestSealedRecord(t *testing.T) {
	film := random(40_000)
	files := map[string][]byte{"film.mp4": film}
	a := newTLSSite(t, ExportGroup, files)
	b := a.other(t, ExportGroup, files).view.Load().services[0]
	c := a.dial(t, &tls.Config{}, nil)
	r := bufio.NewReader(c)
	get(t, c, r, "")
	get(t, c, r, "Range: bytes=0-9\r\n")
	x := a.only(t, func(x *session) bool { return x.cover != nil && x.claim() })
	until(t, "session at its gate", x.stop) // the response's buffer is its goroutine's
	turn := x.turn.Load()
	rec, err := frame.DecodeRecord(frame.AppendRecord(nil, x.record(turn)))
	if err != nil || rec.Cover.Client != 2 || rec.Cover.Server != 5 {
		t.Fatalf("%v, cover %s", err, rec.Cover)
	}
	o := frame.Offer{Record: rec}
	cover, err := coverOf(b, &o)
	if err != nil {
		t.Fatal(err)
	}
	o.Bound.Text = boundTo(turn)
	there, err := turnOf(b, o, cover)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := io.ReadAll(turn.wire.reader(0))
	if got, err := io.ReadAll(there.wire.reader(0)); err != nil || len(got) == 0 || !bytes.Equal(got, want) {
		t.Errorf("%d bytes there, %d here, %v", len(got), len(want), err)
	}
	if there.rec.Cover != (frame.Cover{}) {
		t.Error("the turn keeps a copy of the secrets")
	}
	x.release()
	// The third request shares a record with the beginning of the fourth.
	io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\nGET /fi")
	answerOf(t, r)
	if rec := x.record(x.turn.Load()); rec.Flags&frame.Pinned == 0 || rec.Cover.Suite != 0 {
		t.Error("a record tells numbers that nobody could go on with")
	}
	c.Close()
	a.wait(t)
	a.wg.Wait()
	if rec := x.record(turn); rec.Flags&frame.Pinned == 0 || rec.Cover != (frame.Cover{}) {
		t.Error("a record is told of a session that has ended")
	}
}

// TestSealedSessionRefused: nothing is sealed where anything differs. Each row
// offers the same session to a site that is not like the giver.
func TestSealedSessionRefused(t *testing.T) {
	film := random(1<<20 + 4096)
	files := map[string][]byte{"film.mp4": film}
	flipped := bytes.Clone(film)
	flipped[1<<20+1] ^= 1
	a := newTLSSite(t, ExportGroup, files)
	c := a.dial(t, &tls.Config{}, nil)
	io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
	io.ReadFull(c, make([]byte, 1000))
	a.only(t, func(x *session) bool { return x.turn.Load().off.Load() > 0 })
	offer := a.dump(t, 0, nil)
	change := func(f func(*frame.Offer)) []byte {
		o, err := frame.DecodeOffer(offer)
		if err != nil {
			t.Fatal(err)
		}
		f(&o)
		return frame.AppendOffer(nil, o)
	}
	for _, tc := range []struct {
		name, export string
		film         []byte
		offer        []byte
		want         error
	}{
		{"the same site takes it", ExportGroup, film, offer, nil},
		{"one byte of the object differs", ExportGroup, flipped, offer, errObject},
		{"another second in Date", ExportGroup, film, change(func(o *frame.Offer) { o.Record.Date++ }), errBound},
		{"another range", ExportGroup, film, change(func(o *frame.Offer) { o.Record.Length--; o.Record.Start++ }), errBound},
		{"another media type", ExportGroup, film, change(func(o *frame.Offer) { o.Record.Media++ }), errBound},
		{"another text by its record", ExportGroup, film, change(func(o *frame.Offer) { o.Record.Cover.Text[7]++; o.Bound.Text = [16]byte{} }), errBound},
		{"another first number", ExportGroup, film, change(func(o *frame.Offer) { o.Record.Cover.Server++ }), errBound},
		{"a template of the future", ExportGroup, film, change(func(o *frame.Offer) { o.Record.Template++ }), errTemplate},
		{"a service that keeps its secrets", ExportNone, film, offer, errSealed},
		{"a service of one site", ExportSite, film, offer, errSealed},
		{"a session in clear", ExportGroup, film, change(func(o *frame.Offer) { o.Record.Cover = frame.Cover{} }), errSealed},
	} {
		b := a.other(t, tc.export, map[string][]byte{"film.mp4": tc.film})
		x, err := admitted(t, b, tc.offer)
		if !errors.Is(err, tc.want) || (tc.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if x != nil {
			x.cover.wipe()
		}
	}
}

// TestSealedRecordGoesOn: from a record and the position that a client tells, a site
// sends the rest of the response's records, octet for octet what their owner would
// have sent, and then no octet more: the owner may live and use the next number.
func TestSealedRecordGoesOn(t *testing.T) {
	film := random(1<<20 + 4096)
	files := map[string][]byte{"film.mp4": film}
	a := newTLSSite(t, ExportGroup, files)
	c := a.dial(t, &tls.Config{}, nil)
	io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
	io.ReadFull(c, make([]byte, 1000))
	x := a.only(t, func(x *session) bool { return x.turn.Load().off.Load() > 0 && x.claim() })
	until(t, "session at its gate", x.stop) // the response's buffer is its goroutine's
	defer x.release()
	turn := x.turn.Load()
	rec, err := frame.DecodeRecord(frame.AppendRecord(nil, x.record(turn)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(turn.wire.reader(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 1, 20_000, len(want) - 1, len(want)} {
		told := sight{ready: true, best: tcprepair.Segment{Seq: rec.RcvNxt, Ack: rec.Base + uint32(at), Window: 1000}}
		b := a.other(t, ExportGroup, files)
		y, err := admitted(t, b, frame.AppendOffer(nil, told.offer(rec, time.Now())))
		if err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		got, err := io.ReadAll(serveHere(t, b, y))
		if err != nil || !bytes.Equal(got, want[at:]) {
			t.Errorf("at %d: %d octets, want %d, and the same; %v", at, len(got), len(want)-at, err)
		}
	}
}

// TestFlippedByte: the object at B is overwritten under its hash after B has
// taken the session over. Not one record of the block goes out.
func TestFlippedByte(t *testing.T) {
	film := random(1 << 20)
	files := map[string][]byte{"film.mp4": film}
	a := newTLSSite(t, ExportGroup, files)
	b := a.other(t, ExportGroup, files)
	c := a.dial(t, &tls.Config{}, nil)
	io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
	io.ReadFull(c, make([]byte, 1000))
	a.only(t, func(x *session) bool { return x.turn.Load().off.Load() > 0 })
	offer := a.dump(t, 0, nil)
	// Later the same byte at offset 100 of the film is another.
	f, err := os.OpenFile(filepath.Join(b.cfg.Services[0].Root, "film.mp4"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{film[100] ^ 1}, 100); err != nil {
		t.Fatal(err)
	}
	f.Close()
	x, err := admitted(t, b, offer)
	if err != nil {
		t.Fatalf("the old hash is known at b: %v", err)
	}
	// What a restore would put in flight comes from the same place.
	if n, err := x.turn.Load().wire.reader(0).Read(make([]byte, 1)); n != 0 || !errors.Is(err, content.ErrMismatch) {
		t.Errorf("%d bytes to put in flight, %v", n, err)
	}
	got, err := io.ReadAll(serveHere(t, b, x))
	if len(got) != 0 || err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("%d bytes of records and %v, want none and a reset", len(got), err)
	}
	b.wg.Wait()
	if x.cover.write != (seal.Secret{}) || x.cover.read != (seal.Secret{}) {
		t.Error("the secrets outlive the session")
	}
}
