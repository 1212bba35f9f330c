package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/seal"
	"rhumb/edge/upload"
)

// sealer is the client's end of TLS 1.3, by TLS_AES_128_GCM_SHA256, written anew: what it
// seals package seal has to open.
type sealer struct {
	t      testing.TB
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	number uint64
	wire   []byte // what it has said
}

func newSealer(t testing.TB, secret []byte) *sealer {
	s := &sealer{t: t}
	s.rekey(secret)
	return s
}

// expand is HKDF-Expand-Label (RFC 8446 section 7.1).
func (s *sealer) expand(label string, n int) []byte {
	info := append([]byte{0, byte(n), byte(len("tls13 " + label))}, "tls13 "+label...)
	b, err := hkdf.Expand(sha256.New, s.secret, string(append(info, 0)), n)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *sealer) rekey(secret []byte) {
	s.secret, s.number = secret, 0
	block, err := aes.NewCipher(s.expand("key", 16))
	if err == nil {
		s.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.iv = s.expand("iv", 12)
}

// say seals one record.
func (s *sealer) say(typ byte, text []byte, padding int) {
	inner := append(append(bytes.Clone(text), typ), make([]byte, padding)...)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+16))
	nonce := bytes.Clone(s.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^s.number)
	s.number++
	s.wire = append(append(s.wire, head...), s.aead.Seal(nil, nonce, inner, head)...)
}

// update says KeyUpdate and changes the key.
func (s *sealer) update() {
	s.say(22, []byte{24, 0, 0, 1, 0}, 0)
	s.rekey(s.expand("traffic upd", 32))
}

// send seals text in records of any length, with empty ones and new keys between.
func (s *sealer) send(r *rand.Rand, text []byte) {
	for len(text) > 0 {
		switch r.IntN(12) {
		case 0:
			s.update()
		case 1:
			s.say(23, nil, r.IntN(50))
		}
		n := min(len(text), 1+r.IntN([]int{10, 3000, 16384}[r.IntN(3)]))
		s.say(23, text[:n], r.IntN(2)*r.IntN(1+16384-n))
		text = text[n:]
	}
}

var (
	testRead  = bytes.Repeat([]byte{1}, 32)
	testWrite = bytes.Repeat([]byte{2}, 32)
)

// sealedTakerAt is takerAt over TLS.
func sealedTakerAt(t *testing.T, site, other string, vip netip.AddrPort, freshness string) (*Agent, string) {
	t.Helper()
	dir := t.TempDir()
	pairFor(t, dir, "video.test", 1, time.Now().Add(time.Hour))
	at := netip.MustParseAddrPort("198.51.100.6:7946")
	a, err := New(Config{Site: site, Control: at, Moves: Moves{Backups: true}, Log: slog.New(slog.DiscardHandler),
		TLS:   &tls.Config{Certificates: make([]tls.Certificate, 1), RootCAs: x509.NewCertPool(), ClientCAs: x509.NewCertPool()},
		Peers: []Peer{{Name: other, Control: at, Weight: 1}},
		Services: []Service{{Name: "video", Kind: KindContent, Mode: ModeAct, VIPs: []netip.AddrPort{vip}, Root: dir, Revival: ModeAct,
			Freshness: freshness, Uploads: Uploads{Dir: dir, Max: 1 << 20},
			Cert: filepath.Join(dir, "video.test.crt"), Key: filepath.Join(dir, "video.test.key"), Export: ExportGroup}}})
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

// sealedTaking is a session which has read a request to PUT, and nothing behind it.
func sealedTaking(t *testing.T, a *Agent, k frame.Key, size int64, expect, closes bool) *session {
	t.Helper()
	svc := a.view.Load().vips[k.VIP]
	c, err := newCover(svc.tls, seal.AES128, testWrite, testRead)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{key: k, epoch: 5, svc: svc, cover: c}
	s.done = make(chan struct{})
	idle := idleTurn(svc.id)
	idle.base, idle.rcv, idle.seat.known = 70, 1<<32-1000, true
	if err := c.wrap(idle); err != nil {
		t.Fatal(err)
	}
	s.turn.Store(idle)
	req := request{method: http.MethodPut, name: "/object", close: closes, content: putContent{sized: true, length: size, expect: expect}}
	file, err := svc.store.Begin(upload.ID{9}, upload.Request{Name: "/object", Size: size})
	if err != nil {
		t.Fatal(err)
	}
	s.up = &sending{u: a.uploads, key: k, epoch: 5, svc: svc, id: file.ID(), file: file, guarded: true, first: idle.rcv, word: make(chan struct{}, 1),
		places: places{sealed: true, verdict: http.StatusCreated}}
	a.uploads.enter(s.up)
	if err := s.turnToUpload(&req, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// goOn is the session that a Backup makes of what it claimed, up to its socket.
func goOn(t *testing.T, a *Agent, c claim, rec frame.Record) *session {
	t.Helper()
	o := frame.Offer{Record: rec, SndUna: rec.Base, SndNxt: rec.Base, WriteSeq: rec.Base, RcvNxt: rec.RcvNxt, Input: c.tail}
	o.Record.RcvNxt -= uint32(len(c.tail))
	o.Record.Flags |= frame.Last
	s, err := a.admit(o)
	if err != nil {
		t.Fatal(err)
	}
	a.uploads.adopt(s, c, nil)
	return s
}

// TestUploadSealedModel: an upload over TLS in records of any length, with empty ones and new
// keys, cut anywhere on its way, and a Backup that takes over at any moment its promise
// allows. What the client may have heard acknowledged is there, or comes again, and the
// object is the one that was sent, octet for octet, whoever publishes it.
func TestUploadSealedModel(t *testing.T) {
	runs, claims, tails, updated := 120, 0, 0, 0
	for seed := range uint64(runs) {
		synctest.Test(t, func(t *testing.T) {
			vip := netip.MustParseAddrPort("192.0.2.10:443")
			p := &pair{t: t, r: rand.New(rand.NewPCG(seed, 8)), key: frame.Key{Client: netip.MustParseAddrPort("198.51.100.2:1234"), VIP: vip}}
			p.a, _ = sealedTakerAt(t, "a", "b", vip, FreshL2)
			p.b, _ = sealedTakerAt(t, "b", "a", vip, FreshL2)
			p.body = make([]byte, 1+p.r.IntN(200_000))
			for i := range p.body {
				p.body[i] = byte(p.r.Uint32())
			}
			client := newSealer(t, testRead)
			client.send(p.r, p.body)
			s := sealedTaking(t, p.a, p.key, int64(len(p.body)), p.r.IntN(2) == 0, false)
			p.up = s.up
			p.relink()
			for range 4 {
				p.deliver(p.la, p.lb, p.b)
			}
			read, heard, buf := 0, int64(0), make([]byte, upload.MaxData)
			for range p.r.IntN(300) {
				rec := s.record(s.turn.Load()) // as it is refreshed, also under another key
				if rec.Flags&frame.Pinned != 0 {
					t.Fatal("the record is pinned")
				}
				p.b.uploads.recorded(&rec)
				p.b.replica.enter(rec, nil, "a", false)
				switch p.r.IntN(8) {
				case 0, 1:
					n := min(len(client.wire)-read, p.r.IntN(30000))
					s.cover.opener.Feed(client.wire[read : read+n])
					read += n
					if err := s.openAll(); err != nil {
						t.Fatal(err)
					}
				case 2, 3:
					if p.up.attached(nil) {
						if err := p.up.push(buf[:1+p.r.IntN(len(buf))]); err != nil {
							t.Fatal(err)
						}
					}
				case 4:
					p.deliver(p.la, p.lb, p.b)
				case 5:
					p.deliver(p.lb, p.la, p.a)
				case 6:
					time.Sleep(time.Duration(p.r.Int64N(int64(100 * time.Millisecond))))
				case 7:
					switch p.r.IntN(8) {
					case 0:
						p.cut = true
					case 1:
						p.relink()
					case 2:
						p.open()
					}
				}
				synctest.Wait()
				p.up.mu.Lock()
				heard = max(heard, p.up.kept)
				p.up.mu.Unlock()
				if heard > int64(read) {
					t.Fatalf("%d octets are acknowledged of %d that came", heard, read)
				}
			}
			time.Sleep(time.Second) // the promise is over
			rec := s.record(s.turn.Load())
			at := rec
			p.b.uploads.position(&at)
			c := p.b.uploads.claim(&rec, time.Now())
			if c.none && heard == 0 {
				return
			}
			if c.w == nil || c.over || rec.RcvNxt != at.RcvNxt {
				t.Fatalf("claimed %+v, %d octets were acknowledged; positions %d, %d", c, heard, rec.RcvNxt, at.RcvNxt)
			}
			from := int64(rec.RcvNxt - p.up.first)
			if from < heard {
				t.Fatalf("the client has heard of %d octets, and %d were claimed", heard, from)
			}
			// What its old owner says now changes nothing.
			_ = p.up.push(buf)
			for !p.cut && len(p.la.out) > 0 {
				p.deliver(p.la, p.lb, p.b)
			}
			next := goOn(t, p.b, c, rec)
			for rest := client.wire[from:]; ; {
				if err := next.openAll(); err != nil {
					t.Fatal(err)
				}
				n := min(len(rest), 1+p.r.IntN(40000))
				if next.cover.opener.Feed(rest[:n]); n == 0 {
					break
				}
				rest = rest[n:]
			}
			got := make([]byte, len(p.body))
			if n, err := next.up.file.ReadAt(got, 0); n != len(got) || err != nil && err != io.EOF || !bytes.Equal(got, p.body) {
				t.Fatalf("%d octets of %d, %v, or others", n, len(got), err)
			}
			if end, _ := next.sealedEnd(); next.up.received() != int64(len(p.body)) || end != p.up.first+uint32(len(client.wire)) {
				t.Fatalf("%d octets of %d; the end is at %d of %d", next.up.received(), len(p.body), end-p.up.first, len(client.wire))
			}
			claims++
			if len(c.tail) > 0 {
				tails++
			}
			if next.cover.read != s.cover.read || s.cover.updates > 0 {
				updated++
			}
			p.b.wg.Wait()
		})
	}
	t.Logf("%d runs: %d claims, %d in the middle of a record, %d with another key", runs, claims, tails, updated)
	if claims == 0 || tails == 0 || updated == 0 {
		t.Error("the model does not come to what it shall show")
	}
}

// TestSealedAnswer: the answer to an upload is, octet for octet, the same of its owner, of a
// Backup that goes on with it, and of one that has published it; and so are the records of
// the session that they make of it.
func TestSealedAnswer(t *testing.T) {
	for _, x := range []struct{ expect, closes, update bool }{{}, {expect: true}, {closes: true}, {expect: true, update: true}} {
		vip := netip.MustParseAddrPort("192.0.2.10:443")
		k := frame.Key{Client: netip.MustParseAddrPort("198.51.100.2:1234"), VIP: vip}
		a, _ := sealedTakerAt(t, "a", "b", vip, FreshL2)
		b, _ := sealedTakerAt(t, "b", "a", vip, FreshL2)
		client, body := newSealer(t, testRead), []byte("the object")
		client.say(23, body[:3], 0)
		if x.update {
			client.update()
		}
		client.say(23, body[3:], 7)
		s := sealedTaking(t, a, k, int64(len(body)), x.expect, x.closes)
		begun := s.record(s.turn.Load())
		file, err := b.view.Load().vips[vip].store.Begin(upload.ID{9}, upload.Request{Name: "/object", Size: int64(len(body))})
		if err != nil {
			t.Fatal(err)
		}
		w := &ward{peer: "a", id: upload.ID{9}, epoch: 5, first: s.up.first, file: file, sealed: true}
		s.cover.opener.Feed(client.wire)
		if err := s.openAll(); err != nil {
			t.Fatal(err)
		}
		file.Append(0, body)
		p := s.up.at
		if err := w.place(upload.Message{Offset: uint64(p.plain), Wire: uint64(p.wire), Number: uint32(p.number), Updates: uint8(p.updates)}); err != nil {
			t.Fatal(err)
		}
		kept := w.published(b.view.Load().vips[vip], begun, http.StatusNoContent, 1)
		w.known = true
		taken := begun
		b.uploads.wards[k] = w
		heir := goOn(t, b, b.uploads.claim(&taken, time.Now()), taken)
		// Each would say that there was an object before, or none.
		for _, of := range []*session{s, heir} {
			if err := of.openAll(); err != nil {
				t.Fatal(err)
			}
			if err := of.answerUpload(context.Background(), of.up.judged(http.StatusNoContent)); err != nil {
				t.Fatal(err)
			}
		}
		own := s.record(s.turn.Load())
		kept.TSVal, kept.Wall = own.TSVal, own.Wall
		if kept != own {
			t.Errorf("%+v: the Backup's record\n%#v, its owner's\n%#v", x, kept, own)
		}
		want, err := io.ReadAll(s.turn.Load().wire.reader(0))
		if err != nil || len(want) == 0 {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(heir.turn.Load().wire.reader(0)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%+v: who goes on says %x, %v, the owner %x", x, got, err, want)
		}
		c, err := b.admitRecord(kept)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c.turn.Load().wire.reader(0)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%+v: who has published says %x, %v, the owner %x", x, got, err, want)
		}
	}
}

func (a *Agent) admitRecord(rec frame.Record) (*session, error) {
	rec.Generation++
	return a.admit(frame.Offer{Record: rec, SndUna: rec.Base, SndNxt: rec.Base, WriteSeq: rec.Base, RcvNxt: rec.RcvNxt})
}

// TestUploadSealedRefusal: another answer than the one in the record, and an alert, are said
// only when everybody who may keep the upload has let it go.
func TestUploadSealedRefusal(t *testing.T) {
	vip := netip.MustParseAddrPort("192.0.2.10:443")
	for _, x := range []struct {
		name    string
		claimed bool
		say     bool
	}{{"let go", false, true}, {"taken over", true, false}} {
		synctest.Test(t, func(t *testing.T) {
			p := &pair{t: t, r: rand.New(rand.NewPCG(1, 9)), key: frame.Key{Client: netip.MustParseAddrPort("198.51.100.2:1234"), VIP: vip}}
			p.a, _ = sealedTakerAt(t, "a", "b", vip, FreshL2)
			p.b, _ = sealedTakerAt(t, "b", "a", vip, FreshL2)
			s := sealedTaking(t, p.a, p.key, 100, false, false)
			p.up = s.up
			p.relink()
			p.up.mayKeep("b")
			all := func(from, to *link, a *Agent) {
				for len(from.out) > 0 {
					p.deliver(from, to, a)
				}
			}
			all(p.la, p.lb, p.b)
			all(p.lb, p.la, p.a)
			if err := p.up.push(make([]byte, upload.MaxData)); err != nil {
				t.Fatal(err)
			}
			all(p.la, p.lb, p.b)
			rec := s.record(s.turn.Load())
			if x.claimed {
				time.Sleep(time.Second)
				if c := p.b.uploads.claim(&rec, time.Now()); c.w == nil {
					t.Fatal("not claimed")
				}
			}
			p.a.links.byOf["b"] = []*link{p.la}
			if !s.maySay(t.Context(), http.StatusCreated) {
				t.Error("the answer of the record is not said")
			}
			done := make(chan bool)
			go func() { done <- s.maySay(t.Context(), http.StatusInsufficientStorage) }()
			synctest.Wait()
			all(p.la, p.lb, p.b)
			all(p.lb, p.la, p.a)
			if got := <-done; got != x.say {
				t.Errorf("%s: said %t", x.name, got)
			}
			if got := p.b.uploads.knows(&rec); got != x.claimed {
				t.Errorf("%s: the Backup could go on: %t", x.name, got)
			}
			s.up.verdict = 0
			if !s.maySay(t.Context(), http.StatusInsufficientStorage) {
				t.Error("what nobody keeps can be told anything")
			}
		})
	}
}

// TestUploadSealedBroken: a record with a wrong tag moves nothing on, and is an alert.
func TestUploadSealedBroken(t *testing.T) {
	vip := netip.MustParseAddrPort("192.0.2.10:443")
	a, _ := sealedTakerAt(t, "a", "b", vip, FreshL2)
	s := sealedTaking(t, a, frame.Key{Client: netip.MustParseAddrPort("198.51.100.2:1234"), VIP: vip}, 100, false, false)
	client := newSealer(t, testRead)
	client.say(23, make([]byte, 40), 0)
	good := len(client.wire)
	client.say(23, make([]byte, 40), 0)
	client.wire[len(client.wire)-1] ^= 1
	s.cover.opener.Feed(client.wire)
	err := s.openAll()
	var alert seal.Alert
	var broken *clientError
	if !errors.As(err, &broken) || !errors.As(broken.err, &alert) || alert != seal.BadRecordMAC || s.up.at.plain != 40 || s.up.at.wire != int64(good) {
		t.Errorf("%v; %d octets of %d", err, s.up.at.plain, s.up.at.wire)
	}
}

// TestUploadOverTLS: objects come over a connection under TLS 1.3, with other requests behind
// and before them, in the same records or not.
func TestUploadOverTLS(t *testing.T) {
	s := newTLSSite(t, ExportGroup, nil)
	svc := s.view.Load().services[0].Service
	svc.Uploads = Uploads{Dir: svc.Root, Max: 1 << 20}
	if err := s.SetServices([]Service{svc}); err != nil {
		t.Fatal(err)
	}
	c := s.dial(t, &tls.Config{}, nil)
	r := bufio.NewReader(c)
	body := strings.Repeat("0123456789abcdef", 50_000)
	put := func(name, fields, body string) string {
		return fmt.Sprintf("PUT /%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", name, fields, len(body), body)
	}
	for i, x := range []struct {
		say  string
		want []int
	}{
		{put("a", "", body), []int{201}},
		{put("b", "", "short") + put("c", "", "") + "GET /a HTTP/1.1\r\nHost: x\r\n\r\n" + put("b", "", "again"), []int{201, 201, 200, 204}},
		{put("a", "If-None-Match: *\r\n", ""), []int{412}},
		{put("d", "", body[:100_000]) + "GET /d HTTP/1.1\r\nHost: x\r\n\r\n", []int{201, 200}},
	} {
		go io.WriteString(c, x.say)
		for _, want := range x.want {
			if resp, _ := answerOf(t, r); resp.StatusCode != want {
				t.Fatalf("%d: status %d, want %d", i, resp.StatusCode, want)
			}
		}
	}
	for name, want := range map[string]string{"a": body, "b": "again", "c": "", "d": body[:100_000]} {
		if got, err := os.ReadFile(filepath.Join(svc.Root, name)); string(got) != want || err != nil {
			t.Errorf("%s has %d octets, %v", name, len(got), err)
		}
	}
}

// TestUploadForged: a forged record in an upload that nobody else may keep is told to the
// client (RFC 8446 section 5.2), and nothing is published.
func TestUploadForged(t *testing.T) {
	s := newTLSSite(t, ExportGroup, nil)
	svc := s.view.Load().services[0].Service
	svc.Uploads = Uploads{Dir: svc.Root, Max: 1 << 20}
	if err := s.SetServices([]Service{svc}); err != nil {
		t.Fatal(err)
	}
	var f *flips
	c := s.dial(t, &tls.Config{}, func(raw net.Conn) net.Conn { f = &flips{Conn: raw}; return f })
	io.WriteString(c, "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
	f.armed = true
	io.WriteString(c, "67890")
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("the client hears %v", err)
	}
	c.NetConn().Close()
	s.wait(t)
	if _, err := os.Stat(filepath.Join(svc.Root, "a")); err == nil {
		t.Error("the object is published")
	}
}

// FuzzPlace: whatever places are told, a ward's place has text for all that it says, and a tail
// that is shorter than a record.
func FuzzPlace(f *testing.F) {
	f.Add([]byte{0, 10, 1, 5, 0, 40, 1, 10, 2, 30, 9, 9})
	f.Add([]byte{120, 1, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		st, err := upload.NewStore(dir, "b", upload.Limits{Size: 1000, Uploads: 1, Bytes: 1000})
		if err != nil {
			t.Fatal(err)
		}
		file, err := st.Begin(upload.ID{1}, upload.Request{Name: "/x", Size: 1000})
		if err != nil {
			t.Fatal(err)
		}
		file.Append(0, make([]byte, 100))
		w := &ward{file: file, sealed: true}
		last := int64(0)
		for ; len(b) >= 5; b = b[5:] {
			m := upload.Message{Offset: uint64(int8(b[0])), Wire: uint64(int8(b[1])), Number: uint32(b[2]), Tail: uint16(b[2]) << 6, Updates: b[3], Data: make([]byte, int(b[4])<<6)}
			_ = w.place(m)
			if w.at == nil {
				continue
			}
			if w.at.plain < 0 || w.at.plain > 100 || len(w.at.tail) >= seal.MaxRecord || w.at.updates > seal.MaxUpdates || w.at.wire < last {
				t.Fatalf("%+v", w.at)
			}
			last = w.at.wire
		}
	})
}
