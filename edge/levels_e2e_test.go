//go:build e2e

package edge

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What may become of a client's request when its site is lost.
const (
	asIfNot = "goes on"         // it has its whole response, and the connection goes on
	wholly  = "wholly"          // it has its whole response, then the connection ends
	ends    = "ends"            // the connection ends before a byte of a response
	either  = "goes on or ends" // either
)

// loss is one moment at which a site is lost, and what that may cost.
type loss struct {
	level string
	point string // of package edge, or one of the two below
	nth   int    // request on the connection, from 1
	tls   bool
	lives bool // cut off, and alive
	piece bool // at the Backup is a part of the request; the rest is sent before the verdict
	want  string
}

// Moments that the client's own doing holds open.
const (
	atRest = "at rest" // the last response is over; before the first request: just accepted
	amidst = "amidst"  // of a response
)

// losses are all that the levels promise. That of each service is in docs/reference/levels.md.
func losses() (out []loss) {
	add := func(level, point string, nth int, want string) {
		out = append(out, loss{level: level, point: point, nth: nth, want: want})
	}
	for _, level := range []string{FreshL0, FreshL1} {
		add(level, pointAccepted, 1, ends)
		add(level, atRest, 1, asIfNot)
		add(level, atRest, 2, asIfNot)
		for nth := 1; nth <= 2; nth++ {
			want := either
			if level == FreshL1 {
				want = asIfNot
			}
			add(level, pointPiece, nth, want)
			add(level, pointHead, nth, want)
			add(level, pointSecured, nth, want)
			add(level, amidst, nth, asIfNot)
			add(level, pointKept, nth, asIfNot)
			if level == FreshL1 {
				add(level, pointPieceTold, nth, asIfNot)
			}
		}
	}
	for _, point := range []string{pointPiece, pointPieceTold, pointHead, pointSecured, amidst} {
		out = append(out, loss{level: FreshL1, point: point, nth: 2, lives: true, want: asIfNot})
		out = append(out, loss{level: FreshL2, point: point, nth: 2, want: asIfNot})
	}
	out = append(out, loss{level: FreshL1, point: pointKept, nth: 2, piece: true, want: asIfNot})
	for _, l := range []loss{{point: pointHead, nth: 1, want: ends}, {point: pointSecured, nth: 1, want: wholly}, {point: pointKept, nth: 2, want: wholly},
		{point: amidst, nth: 2, want: wholly}, {point: atRest, nth: 2, want: ends}, {point: pointPiece, nth: 2, want: ends}} {
		l.level, l.tls = FreshL1, true
		out = append(out, l)
	}
	return out
}

func (l loss) String() string {
	s := fmt.Sprintf("%s, %s, request %d", l.level, l.point, l.nth)
	if l.tls {
		s += ", TLS"
	}
	if l.lives {
		s += ", cut off"
	}
	if l.piece {
		s += ", a part"
	}
	return s
}

// TestLevels: a site is lost at each point of a session, killed or cut off. Each client
// gets what its freshness level promises and nothing else: never a wrong byte, never one twice.
func TestLevels(t *testing.T) {
	short := map[string]bool{"L1, piece, request 1": true, "L1, kept, request 2, a part": true, "L1, piece told, request 1": true, "L1, kept, request 2": true,
		"L1, head, request 2, cut off": true, "L0, head, request 1": true, "L1, secured, request 1, TLS": true}
	for i, l := range losses() {
		if !soak() && !short[l.String()] {
			continue
		}
		for j, f := range e2eFamilies {
			if !soak() && j != i%2 {
				continue
			}
			t.Run(l.String()+", "+f.name, func(t *testing.T) { l.judge(t, f.vip) })
		}
	}
}

// judge runs one loss.
func (l loss) judge(t *testing.T, vip string) {
	w := newWorld(t)
	x := w.object("film.mp4", 4<<20)
	x.VIP = vip
	if l.tls {
		pairFor(t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
		x.CA = filepath.Join(w.dir, "video.test.crt")
	}
	a, b := w.sites(func(y *agentArgs) {
		y.Backups, y.Freshness, y.PullAfter, y.Uploads = true, l.level, time.Hour, l.level == FreshL2
		if l.tls {
			y.Export = ExportGroup
		}
		dies := "a"
		if l.point == pointKept {
			dies = "b"
		}
		if y.Site == dies && l.point != atRest && l.point != amidst {
			y.Die, y.Nth, y.Cut, y.Lives = l.point, l.nth, true, l.lives
			if l.point == pointPiece || l.point == pointPieceTold {
				y.Nth = 1 // other requests come whole
			}
			if l.point == pointKept {
				y.Victim = w.prefix + "a"
			}
		}
	})
	w.await("hold", func() bool {
		return l.level == FreshL0 || l.tls || strings.Contains(w.in("a", "nft list ruleset"), "watched4")
	})
	c := &dialogue{loss: l, w: w, a: a, b: b, talker: w.start("c", "talk", x), object: x}
	c.run()
}

// dialogue is one client's with the site that is lost, and then with the other.
type dialogue struct {
	loss
	w      *world
	a, b   *process
	talker *process
	object loadArgs
}

func (d *dialogue) tell(line string) (got spoken) {
	d.w.t.Helper()
	d.talker.ask(line, &got)
	return got
}

// sure is tell for what must succeed.
func (d *dialogue) sure(line string) spoken {
	d.w.t.Helper()
	got := d.tell(line)
	if got.Err != "" {
		d.w.t.Fatalf("%s: %s", line, got.Err)
	}
	return got
}

// request is the nth: the first are short, that which the site is lost over is of all.
func (d *dialogue) request(n int) string {
	r := ""
	if n != d.nth {
		r = "Range: bytes=0-4095\r\n"
	}
	return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: video.test\r\n%s\r\n", d.object.Name, r)
}

// heard waits until the Backup's knowledge is another than was.
func (d *dialogue) heard(was uint32) uint32 {
	d.w.t.Helper()
	var r report
	d.w.await("record at the backup", func() bool { d.b.ask("state", &r); return r.Records == 1 && r.Heard != was })
	return r.Heard
}

func (d *dialogue) run() {
	t := d.w.t
	d.sure("dial")
	known := uint32(0)
	if d.point != pointAccepted {
		known = d.heard(0)
	}
	for n := 1; n < d.nth; n++ {
		d.sure("send " + strconv.Quote(d.request(n)))
		d.sure("begin")
		if got := d.sure("rest"); got.N != 4096 || got.Status != http.StatusPartialContent {
			t.Fatalf("request %d: %+v", n, got)
		}
		known = d.heard(known)
	}
	left := d.upTo(known)
	d.lose()
	if d.piece { // while it leads to the lost site: the client has to send all again
		d.give(left)
	}
	d.w.route("b")
	var word string
	d.b.ask("down a", &word)
	if !d.piece {
		d.give(left)
	}
	d.check()
}

// give sends the rest of the request.
func (d *dialogue) give(left string) {
	d.w.t.Helper()
	if left == "" {
		return
	}
	if got := d.tell("send " + strconv.Quote(left)); got.Err != "" && d.want != ends && d.want != either {
		d.w.t.Errorf("the rest of the request: %s", got.Err)
	}
}

// upTo brings the client to the moment of the loss, and returns what it is still to send.
func (d *dialogue) upTo(known uint32) (left string) {
	all := d.request(d.nth)
	switch d.point {
	case pointAccepted, atRest:
		return all
	case pointPiece, pointPieceTold:
		d.sure("send " + strconv.Quote(all[:9]))
		return all[9:]
	case pointKept:
		if d.piece {
			d.sure("send " + strconv.Quote(all[:9]))
			return all[9:]
		}
		d.sure("send " + strconv.Quote(all))
	case amidst:
		d.sure("send " + strconv.Quote(all))
		d.sure("begin")
		d.heard(known)
	default:
		d.sure("send " + strconv.Quote(all))
	}
	return ""
}

// lose is the loss, by ourselves or at the point.
func (d *dialogue) lose() {
	itself := d.point != atRest && d.point != amidst
	switch {
	case d.lives && itself:
		d.w.await("partition", func() bool { return strings.Contains(d.w.in("a", "nft list tables"), "inet cut") })
	case d.lives:
		for line := range strings.Lines(partition) {
			d.nft(line)
		}
	case itself:
		d.a.cmd.Wait()
	default:
		d.w.in("r", "ip link set a0 down")
		d.a.kill()
	}
}

// nft runs one line at the lost site.
func (d *dialogue) nft(line string) {
	d.w.t.Helper()
	d.w.in("a", "nft "+strings.TrimSpace(line))
}

// check judges what the client gets.
func (d *dialogue) check() {
	t := d.w.t
	got := spoken{}
	if d.point != amidst {
		if got = d.tell("begin"); got.Err != "" && got.Status == 0 {
			if d.want != ends && d.want != either {
				var r report
				d.b.ask("state", &r)
				t.Fatalf("no response: %s; revivals %v, answers %v", got.Err, r.Revivals, r.Answers)
			}
			t.Logf("ended: %s", got.Err)
			return
		}
		if d.want == ends {
			t.Fatalf("%+v, want the end", got)
		}
	}
	if got = d.sure("rest"); got.Sum != d.object.HashHex || got.N != d.object.Size || got.Status != http.StatusOK {
		t.Fatalf("%+v, want all of the object", got)
	}
	if d.lives {
		d.heal()
	}
	next := d.tell("send " + strconv.Quote(d.request(d.nth+1)))
	if d.want == wholly {
		if more := d.tell("more"); more.N != 0 {
			t.Errorf("%d octets behind the response", more.N)
		}
		return
	}
	if next.Err != "" {
		t.Fatalf("next request: %s", next.Err)
	}
	d.sure("begin")
	if got := d.sure("rest"); got.N != 4096 || got.Status != http.StatusPartialContent {
		t.Errorf("next request: %+v", got)
	}
	d.w.noResets()
}

// heal brings the lost site back, which then falls silent.
func (d *dialogue) heal() {
	var word string
	var r report
	d.nft("delete table inet cut")
	d.b.ask("down", &word)
	d.w.await("silence of the old owner", func() bool { d.a.ask("state", &r); return r.Sessions == 0 })
}

// TestPiecesAreAcknowledged: a request that comes in pieces is acknowledged piece by piece, as
// soon as the Backup has them; a client that waits for that is answered.
func TestPiecesAreAcknowledged(t *testing.T) {
	for i, level := range []string{FreshL1, FreshL2} {
		t.Run(level, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 4<<10)
			x.VIP = e2eFamilies[i].vip
			_, b := w.sites(func(y *agentArgs) { y.Backups, y.Freshness, y.Uploads = true, level, level == FreshL2 })
			w.await("hold", func() bool { return strings.Contains(w.in("a", "nft list ruleset"), "watched4") })
			d := &dialogue{loss: loss{nth: 1}, w: w, b: b, talker: w.start("c", "talk", x), object: x}
			d.sure("dial")
			known := d.heard(0)
			all := d.request(1)
			for at := 0; at < len(all); at += 20 {
				d.sure("send " + strconv.Quote(all[at:min(at+20, len(all))]))
				known = d.heard(known)
				w.await("acknowledgement", func() bool { return w.unacked() == 0 })
			}
			d.sure("begin")
			if got := d.sure("rest"); got.Sum != x.HashHex {
				t.Errorf("%+v", got)
			}
		})
	}
}

// unacked counts the octets that the client's host waits for the acknowledgement of.
func (w *world) unacked() (n int) {
	w.t.Helper()
	for line := range strings.Lines(w.in("c", "ss -Htn state established dport = :8080")) {
		if f := strings.Fields(line); len(f) > 1 {
			octets, err := strconv.Atoi(f[1])
			if err != nil {
				w.t.Fatal(err)
			}
			n += octets
		}
	}
	return n
}

// TestOrdinaryRequests: requests that come whole, one after the other, are not held: their
// acknowledgements leave with the responses, which pass no queue. The long form judges how
// many segments did; on a busy machine the kernel acknowledges by itself, after 40 ms.
func TestOrdinaryRequests(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 800<<10)
	x.N, x.VIP, x.Piece = 1, vip6, 4<<10
	a, _ := w.sites(func(y *agentArgs) { y.Backups, y.Freshness = true, FreshL1 })
	w.await("hold", func() bool { return strings.Contains(w.in("a", "nft list ruleset"), "watched4") })
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	w.finish(load, x.N)
	var r report
	a.ask("state", &r)
	queued := 0
	for line := range strings.Lines(w.in("a", "nft list table inet rhumb_hold")) {
		if i := strings.Index(line, "counter packets "); i >= 0 {
			var n int
			fmt.Sscanf(line[i:], "counter packets %d", &n)
			queued += n
		}
	}
	t.Logf("%d segments passed the queue for %d requests", queued, r.Requests)
	if r.Requests != x.Size/x.Piece {
		t.Errorf("%d requests, want %d", r.Requests, x.Size/x.Piece)
	}
	if soak() && int64(queued) > r.Requests/10 {
		t.Errorf("%d segments passed the queue for %d requests", queued, r.Requests)
	}
}
