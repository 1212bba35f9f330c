package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/upload"
)

// takerAt is a site's agent, not running, with one service that takes uploads.
func takerAt(t *testing.T, site, other string, vip netip.AddrPort, freshness string) (a *Agent, dir string) {
	t.Helper()
	dir = t.TempDir()
	at := netip.MustParseAddrPort("198.51.100.6:7946")
	a, err := New(Config{Site: site, Control: at, Moves: Moves{Backups: true}, Log: slog.New(slog.DiscardHandler),
		TLS:   &tls.Config{Certificates: make([]tls.Certificate, 1), RootCAs: x509.NewCertPool(), ClientCAs: x509.NewCertPool()},
		Peers: []Peer{{Name: other, Control: at, Weight: 1}},
		Services: []Service{{Name: "video", Kind: KindContent, Mode: ModeAct, VIPs: []netip.AddrPort{vip}, Root: dir, Revival: ModeAct,
			Freshness: freshness, Uploads: Uploads{Dir: dir, Max: 1 << 20}}}})
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

// taking serves connections of one agent.
type taking struct {
	t   *testing.T
	a   *Agent
	ln  net.Listener
	dir string
}

func newTaking(t *testing.T, freshness string) *taking {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &taking{t: t, ln: ln}
	x.a, x.dir = takerAt(t, "a", "b", plain(ln.Addr()), freshness)
	ctx, cancel := context.WithCancel(context.Background())
	x.a.wg.Go(func() { x.a.accept(ctx, ln) })
	t.Cleanup(func() { cancel(); ln.Close(); x.a.wg.Wait() })
	return x
}

func (x *taking) dial() (net.Conn, *bufio.Reader) {
	x.t.Helper()
	c, err := net.Dial("tcp", x.ln.Addr().String())
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c, bufio.NewReader(c)
}

// status reads one answer.
func (x *taking) status(r *bufio.Reader) (int, string) {
	x.t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestUploadAnswers: what cannot be an upload is refused by its status, and nothing of it
// is left.
func TestUploadAnswers(t *testing.T) {
	x := newTaking(t, "")
	if err := os.MkdirAll(filepath.Join(x.dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "there"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fields string
		want   int
	}{
		{"PUT /o HTTP/1.1\r\nHost: x\r\n", 411},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n", 411},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n", 400},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n", 400},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n", 400},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n", 400},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n", 413},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/8\r\n", 400},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 200-maybe\r\n", 417},
		{"PUT /there HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nIf-None-Match: *\r\n", 412},
		{"PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nIf-Match: *\r\n", 412},
		{"PUT /dir HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n", 409},
		{"PUT /there/below HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n", 409},
		{"PUT /.rhumb-staging/o HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n", 400},
		{"GET /.rhumb-staging/ HTTP/1.1\r\nHost: x\r\n", 404},
		{"POST /o HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n", 405},
	} {
		conn, r := x.dial()
		io.WriteString(conn, c.fields+"\r\nbody")
		if got, _ := x.status(r); got != c.want {
			t.Errorf("%q: status %d, want %d", c.fields, got, c.want)
		}
	}
	x.clean("there")
	without := x.a.view.Load().services[0].Service
	without.Uploads = Uploads{}
	if err := x.a.SetServices([]Service{without}); err != nil {
		t.Fatal(err)
	}
	conn, r := x.dial()
	io.WriteString(conn, "PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
	if got, _ := x.status(r); got != 405 {
		t.Errorf("without uploads: status %d", got)
	}
}

// TestAllow: who may not do something is told what may be done: PUT where uploads are taken.
func TestAllow(t *testing.T) {
	x := newTaking(t, "")
	without := x.a.view.Load().services[0].Service
	without.Uploads = Uploads{}
	for _, want := range []string{"GET, HEAD, PUT", "GET, HEAD"} {
		conn, r := x.dial()
		io.WriteString(conn, "DELETE /o HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Allow"); resp.StatusCode != 405 || got != want {
			t.Errorf("status %d, allowed %q, want %q", resp.StatusCode, got, want)
		}
		if err := x.a.SetServices([]Service{without}); err != nil {
			t.Fatal(err)
		}
	}
}

// clean checks that the directory has these objects, and nothing is staged.
func (x *taking) clean(want ...string) {
	x.t.Helper()
	var got []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		left, err := os.ReadDir(filepath.Join(x.dir, upload.Staging))
		if err != nil {
			x.t.Fatal(err)
		}
		if got = nil; len(left) == 0 {
			break
		}
		for _, e := range left {
			got = append(got, "staged: "+e.Name())
		}
	}
	all, err := os.ReadDir(x.dir)
	if err != nil {
		x.t.Fatal(err)
	}
	for _, e := range all {
		if !e.IsDir() {
			got = append(got, e.Name())
		}
	}
	if !slices.Equal(got, want) {
		x.t.Errorf("in the directory: %v, want %v", got, want)
	}
}

// TestUpload: objects come over one connection, between other requests, are there when
// they are answered, and replace what was there as a whole.
func TestUpload(t *testing.T) {
	x := newTaking(t, FreshL1)
	conn, r := x.dial()
	body := strings.Repeat("0123456789abcdef", 40000)
	ask := func(want int, text string, request string) {
		t.Helper()
		go io.WriteString(conn, request)
		if got, b := x.status(r); got != want || b != text {
			t.Fatalf("status %d with %d octets, want %d with %d", got, len(b), want, len(text))
		}
	}
	put := fmt.Sprintf("PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	ask(201, "Created\n", put)
	ask(204, "", "PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nnew")
	ask(204, "", put+"GET /o HTTP/1.1\r\nHost: x\r\n\r\nPUT /empty HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if got, b := x.status(r); got != 200 || b != body {
		t.Fatalf("status %d with %d octets", got, len(b))
	}
	if got, _ := x.status(r); got != 201 {
		t.Fatalf("an empty object: status %d", got)
	}
	io.WriteString(conn, "PUT /asked HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	if got, err := r.ReadString('\n'); got != "HTTP/1.1 100 Continue\r\n" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	r.ReadString('\n')
	ask(201, "Created\n", "abc")
	x.clean("asked", "empty", "o")

	// A client that goes half-way leaves nothing, and what was there stays.
	io.WriteString(conn, put[:len(put)/2])
	conn.Close()
	x.clean("asked", "empty", "o")
	if b, err := os.ReadFile(filepath.Join(x.dir, "o")); string(b) != body || err != nil {
		t.Errorf("the object has %d octets, %v", len(b), err)
	}
}

// TestUploadUnguarded: a service that promises L2 takes nothing that it could lose.
func TestUploadUnguarded(t *testing.T) {
	x := newTaking(t, FreshL2)
	conn, r := x.dial()
	io.WriteString(conn, "PUT /o HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
	if got, _ := x.status(r); got != 503 {
		t.Errorf("status %d", got)
	}
	x.clean()
}

// pair is an owner and a Backup, and what is under way between them.
type pair struct {
	t       *testing.T
	r       *rand.Rand
	a, b    *Agent
	body    []byte
	up      *sending
	key     frame.Key
	la, lb  *link     // the owner's end, the Backup's end
	cut     bool      // what one says the other does not hear
	heard   int64     // octets that the client may know to be received
	claimed time.Time // zero: not yet
	had     int64     // octets that were claimed
	acted   time.Time // the owner published
}

// deliver carries a random part of what waits. Nothing overtakes, and after a loss nothing
// comes: a link is one stream.
func (p *pair) deliver(from, to *link, a *Agent) {
	for n := p.r.IntN(4); n > 0 && len(from.out) > 0; n-- {
		raw := <-from.out
		if p.cut {
			continue
		}
		f, err := frame.Read(bytes.NewReader(raw))
		if err != nil {
			p.t.Fatal(err)
		}
		switch f.Type {
		case frame.Uploads:
			a.uploads.handle(to, f)
		case frame.Claimed:
		default:
			p.t.Fatalf("unexpected %s", f.Type)
		}
	}
}

// relink gives both ends a new link, once the old one is lost.
func (p *pair) relink() {
	p.cut = false
	p.la, p.lb = testLink("b"), testLink("a")
	p.la.out, p.lb.out = make(chan []byte, 4096), make(chan []byte, 4096)
	p.up.mu.Lock()
	p.up.peer, p.up.link, p.up.opened = "b", p.la, false
	p.up.mu.Unlock()
	p.open()
}

func (p *pair) open() {
	p.up.mu.Lock()
	p.up.opened = false
	p.up.mu.Unlock()
	l, seq := p.up.question()
	kind := upload.Open
	if p.up.sealed {
		kind = upload.OpenSealed
	}
	if err := p.up.send(l, seq, upload.Message{Kind: kind, ID: p.up.id, Service: p.up.svc.id, First: p.up.first, Request: p.up.file.Request()}); err != nil {
		p.t.Fatal(err)
	}
}

// step is one thing that happens.
func (p *pair) step() {
	buf := make([]byte, upload.MaxData)
	size := p.up.file.Request().Size
	switch p.r.IntN(12) {
	case 0, 1:
		n := min(size-p.up.file.Length(), p.r.Int64N(40000))
		if _, err := p.up.file.Append(p.up.file.Length(), p.body[p.up.file.Length():p.up.file.Length()+n]); err != nil && p.acted.IsZero() {
			p.t.Fatal(err)
		}
	case 2, 3:
		if p.up.attached(nil) {
			if err := p.up.push(buf[:1+p.r.IntN(len(buf))]); err != nil && p.acted.IsZero() {
				p.t.Fatal(err)
			}
		}
	case 4, 5, 6:
		p.deliver(p.la, p.lb, p.b)
	case 7, 8:
		p.deliver(p.lb, p.la, p.a)
	case 9:
		time.Sleep(time.Duration(p.r.Int64N(int64(250 * time.Millisecond))))
	case 10:
		switch p.r.IntN(8) {
		case 0:
			p.cut = true
		case 1:
			p.relink()
		case 2:
			p.open() // asks again, as after a pause
		}
	case 11:
		p.decide()
	}
	synctest.Wait()
	p.up.mu.Lock()
	p.heard = max(p.heard, p.up.safe)
	p.up.mu.Unlock()
}

// decide publishes at the owner as a session does, one look at a time.
func (p *pair) decide() {
	sum, whole := p.up.file.Sum()
	if !whole || !p.acted.IsZero() {
		return
	}
	status, _ := p.up.decided()
	switch {
	case status != 0 && p.up.leased(time.Now()):
		got, err := p.up.file.PublishAfter(sum, func() (int, error) { return status, nil })
		if err != nil || got != status {
			p.t.Fatalf("status %d, %v", got, err)
		}
		p.acted = time.Now()
		if !p.claimed.IsZero() {
			p.t.Fatalf("the owner acts at %v, the Backup has claimed at %v", p.acted, p.claimed)
		}
	case p.up.behind() == 0 && p.up.attached(nil):
		l, seq := p.up.question()
		_ = p.up.send(l, seq, upload.Message{Kind: upload.Publish, ID: p.up.id, Sum: sum, Date: 7})
	}
}

// claim is the Backup's, at a random time.
func (p *pair) claim() {
	p.b.replica.mu.Lock()
	st, ok := p.b.replica.store[p.key]
	if ok {
		p.b.replica.drop(p.key) // as take does
	}
	p.b.replica.mu.Unlock()
	c := p.b.uploads.claim(&st.rec, time.Now())
	if !ok || c.w == nil {
		p.b.replica.putBack(st)
		return
	}
	p.claimed, p.had = time.Now(), int64(st.rec.RcvNxt-p.up.first)
	if p.had != c.w.file.Length() || c.over != (st.rec.Flags&frame.Upload == 0) {
		p.t.Fatalf("%d octets are there, %d were claimed", c.w.file.Length(), p.had)
	}
	// What the owner has, and nobody has heard of, comes now.
	if at := p.up.file.Length(); p.acted.IsZero() {
		if _, err := p.up.file.Append(at, p.body[at:at+p.r.Int64N(int64(len(p.body))-at+1)]); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.up.push(make([]byte, upload.MaxData)); err != nil && p.acted.IsZero() {
		p.t.Fatal(err)
	}
	for !p.cut && len(p.la.out) > 0 {
		p.deliver(p.la, p.lb, p.b)
	}
	if c.over {
		return
	}
	got := make([]byte, p.had)
	if _, err := c.w.file.ReadAt(got, 0); err != nil || !bytes.Equal(got, p.body[:p.had]) {
		p.t.Fatalf("%d octets were claimed, %v, or others", p.had, err)
	}
}

// TestUploadModel: with messages that are late or lost, links that are cut, and a Backup
// that takes over at any moment its promise allows, by the code of both sides: the client
// never hears of an octet that who goes on does not have; what is claimed are the octets
// that were sent; nobody adds to it afterwards; and the owner does not act after a claim.
func TestUploadModel(t *testing.T) {
	runs, claims, acts := 150, 0, 0
	for seed := range uint64(runs) {
		synctest.Test(t, func(t *testing.T) {
			vip := netip.MustParseAddrPort("192.0.2.10:80")
			p := &pair{t: t, r: rand.New(rand.NewPCG(seed, 7)), key: frame.Key{Client: netip.MustParseAddrPort("198.51.100.2:1234"), VIP: vip}}
			p.a, _ = takerAt(t, "a", "b", vip, FreshL2)
			p.b, _ = takerAt(t, "b", "a", vip, FreshL2)
			p.body = make([]byte, 1+p.r.IntN(300_000))
			for i := range p.body {
				p.body[i] = byte(p.r.Uint32())
			}
			svc := p.a.view.Load().vips[vip]
			file, err := svc.store.Begin(upload.ID{byte(seed)}, upload.Request{Name: "/object", Size: int64(len(p.body)), IfNoneMatch: "*"})
			if err != nil {
				t.Fatal(err)
			}
			p.up = &sending{u: p.a.uploads, key: p.key, epoch: 5, svc: svc, id: file.ID(), file: file, guarded: true, first: 1<<32 - 1000, word: make(chan struct{}, 1)}
			p.a.uploads.enter(p.up)
			p.relink()
			for range 4 {
				p.deliver(p.la, p.lb, p.b)
			}
			rec := frame.Record{Key: p.key, Epoch: 5, Flags: frame.Upload, Template: template, Status: 200, Service: svc.id, Base: 9, RcvNxt: p.up.first}
			p.b.replica.enter(rec, nil, "a", false)
			for i := range 400 {
				p.b.uploads.recorded(&rec)
				if p.step(); i > 20 && p.claimed.IsZero() && p.r.IntN(40) == 0 {
					p.claim()
				}
				if !p.claimed.IsZero() && p.heard > p.had {
					t.Fatalf("the client has heard of %d octets, and %d were claimed", p.heard, p.had)
				}
			}
			if w := p.b.uploads.find(p.key); !p.claimed.IsZero() && (w == nil || w.file.Length() != p.had) {
				t.Fatal("the owner has added to what was claimed")
			}
			if !p.claimed.IsZero() {
				claims++
			}
			if !p.acted.IsZero() {
				acts++
			}
			if n := p.b.view.Load().services[0].store.Effects(); n > 1 || !p.acted.IsZero() && n != 1 {
				t.Fatalf("%d effects at the Backup", n)
			}
			p.b.wg.Wait()
		})
	}
	t.Logf("%d runs: %d claims, %d publications", runs, claims, acts)
	if claims == 0 || acts == 0 {
		t.Error("the model does not come to what it shall show")
	}
}

// TestNoWardWithoutRoom: what an upload's Backup has begun to keep goes when it has no room
// for the session, whose owner is told so.
func TestNoWardWithoutRoom(t *testing.T) {
	vip := netip.MustParseAddrPort("192.0.2.10:8080")
	a, _ := takerAt(t, "b", "a", vip, FreshL2)
	a.SetReserve(Reserve{Capacity: 1}) // 95 % of it are none
	a.replica.balance(time.Now())
	svc, l := a.view.Load().vips[vip], testLink("a")
	k := frame.Key{Client: netip.MustParseAddrPort("203.0.113.9:4711"), VIP: vip}
	open := upload.Message{Kind: upload.Open, ID: upload.ID{1}, Service: svc.id, First: 1000, Request: upload.Request{Name: "/x", Size: 10}}
	a.uploads.opened(l, frame.Frame{Type: frame.Uploads, Seq: 1, Key: k, Epoch: 5}, open)
	if l.sent(t); a.uploads.find(k) == nil {
		t.Fatal("the upload was not begun")
	}
	rec := frame.Record{Key: k, Epoch: 5, Flags: frame.Upload, Template: template, Status: 200, Service: svc.id, RcvNxt: 1000}
	answers := told(t, a, l, 1, rec)
	if answers[0].Type != frame.Full || a.uploads.find(k) != nil {
		t.Errorf("%+v; it is kept: %t", answers, a.uploads.find(k) != nil)
	}
	if n, _ := svc.store.Len(); n != 0 {
		t.Errorf("%d uploads are staged", n)
	}
}

// TestRevivedUploadStays: an upload that goes on here is not given away, whoever gets its
// client's packets and asks for it.
func TestRevivedUploadStays(t *testing.T) {
	vip := netip.MustParseAddrPort("192.0.2.10:443")
	a, _ := takerAt(t, "b", "a", vip, FreshL2)
	rec := frame.Record{Key: testKey(1), Epoch: 7, Template: template, Status: http.StatusOK, Service: serviceID("video"), Options: recTimestamps}
	for _, upload := range []bool{false, true} {
		if rec.Flags = frame.Idle; upload {
			rec.Flags = frame.Upload
		}
		s, err := a.admit(frame.Offer{Record: rec})
		if err != nil {
			t.Fatal(err)
		}
		if gives := s.claim(); gives == upload {
			t.Errorf("an upload: %t, is given away: %t", upload, gives)
		}
	}
}
