//go:build e2e

package edge

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sender is curl at the client that sends what the test gives it: so an upload lasts for as
// long as a test needs it, on any machine.
type sender struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    bytes.Buffer
	stderr bytes.Buffer
	body   []byte
	given  int
}

// upload begins a PUT of an object.
func (w *world) upload(vip, name string, body []byte, args ...string) *sender {
	w.t.Helper()
	return w.put("http://"+inURL(vip)+":8080"+name, body, args...)
}

func inURL(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}

// put begins a PUT to an URL.
func (w *world) put(url string, body []byte, args ...string) *sender {
	w.t.Helper()
	all := append([]string{"netns", "exec", w.prefix + "c", "curl", "-sSg", "--max-time", "80", "-T", "-", "-H", "Transfer-Encoding:",
		"-H", "Content-Length: " + strconv.Itoa(len(body)), "-w", "%{http_code}"}, args...)
	p := &sender{t: w.t, body: body, cmd: exec.Command("ip", append(all, url)...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// give sends up to an offset of the body. It is curl that blocks, not the test.
func (p *sender) give(upto int) {
	part := p.body[p.given:upto]
	p.given = upto
	p.in.Write(part) // curl may have ended; its status tells
}

// end sends the rest and returns what curl saw: the status and the answer.
func (p *sender) end() (string, error) {
	p.give(len(p.body))
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return p.out.String(), fmt.Errorf("curl: %w: %s", err, p.stderr.String())
	}
	return p.out.String(), nil
}

func randomBody(n int, seed uint64) []byte {
	r, b := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), make([]byte, n)
	r.Read(b)
	return b
}

// published is the object of a name at a site, nil if there is none.
func (w *world) published(site, name string) []byte {
	b, err := os.ReadFile(filepath.Join(w.dir, "up-"+site, name))
	if err != nil && !os.IsNotExist(err) {
		w.t.Error(err)
	}
	return b
}

// staged lists what of uploads is left at a site.
func (w *world) staged(site string) []string {
	names, err := filepath.Glob(filepath.Join(w.dir, "up-"+site, ".rhumb-staging", "*"))
	if err != nil {
		w.t.Error(err)
	}
	return names
}

// takers are sites that take uploads, with L2, and may each differ.
func (w *world) takers(forA, forB func(*agentArgs)) (a, b *process) {
	w.t.Helper()
	w.object("film.mp4", 1<<10)
	return w.sites(func(x *agentArgs) {
		x.Backups, x.Uploads, x.Freshness = true, true, FreshL2
		if change := map[string]func(*agentArgs){"a": forA, "b": forB}[x.Site]; change != nil {
			change(x)
		}
	})
}

// TestUploadSiteLoss: a site dies in the middle of an upload. The client sends on as if
// nothing had happened, the object is whole at the other site, and nowhere else.
func TestUploadSiteLoss(t *testing.T) {
	runs, size := 2, 6<<20
	if soak() {
		runs, size = 20, 200<<20
	}
	for _, f := range families(0) {
		for i := range runs {
			t.Run(fmt.Sprintf("%s, run %d", f.name, i+1), func(t *testing.T) {
				uploadLosesSite(t, size, uint64(i), func(w *world, body []byte) (a, b *process, up *sender) {
					a, b = w.takers(nil, nil)
					return a, b, w.upload(f.vip, "/new/object.bin", body)
				})
			})
		}
	}
}

// uploadLosesSite: a site dies in the middle of an upload, which begin begins. What is
// uploaded follows from seed.
func uploadLosesSite(t *testing.T, size int, seed uint64, begin func(w *world, body []byte) (a, b *process, up *sender)) {
	w := newWorld(t)
	body := randomBody(size, seed)
	a, b, up := begin(w, body)
	given := make(chan struct{})
	go func() {
		defer close(given)
		up.give(size / 4 * 3) // the crash is somewhere in it, the end is not
	}()
	var r report
	w.await("octets at the backup", func() bool { b.ask("state", &r); return r.Staged >= int64(size)/4 })
	w.lose("a", a)
	begun := time.Now()
	var word string
	b.ask("down a", &word)
	there := r.Staged
	<-given
	got, err := up.end()
	took := time.Since(begun)
	if b.ask("state", &r); got != "Created\n201" || err != nil {
		t.Fatalf("answer %q, %v; revivals %v, answers %v", got, err, r.Revivals, r.Answers)
	}
	t.Logf("%d octets at the backup a moment before its site died, whole %v later; revivals %v", there, took, r.Revivals)
	if r.Revivals[reviveOK] != 1 {
		t.Errorf("revivals %v: want one", r.Revivals)
	}
	w.once("b", b, "new/object.bin", body)
	if got := w.published("a", "new/object.bin"); got != nil {
		t.Errorf("the dead site has published %d octets", len(got))
	}
	w.noResets()
}

// once checks that a site has an object by one effect, and nothing else of uploads.
func (w *world) once(site string, p *process, name string, body []byte) {
	w.t.Helper()
	if got := w.published(site, name); sha256.Sum256(got) != sha256.Sum256(body) {
		w.t.Errorf("the object at %s has %d octets, which are others", site, len(got))
	}
	var r report
	if p.ask("state", &r); r.Effects != 1 {
		w.t.Errorf("%d objects were published at %s, want one", r.Effects, site)
	}
	w.await("end of the staging at "+site, func() bool { return len(w.staged(site)) == 0 })
}

// TestUploadPoints: a site dies at each point of an upload that it passes, or its Backup
// does. The client is answered once, by the answer of one effect: a second one would meet
// the object that is there, and its condition says that there be none.
func TestUploadPoints(t *testing.T) {
	const size = 3 << 20
	vips := map[string]string{pointBegun: vip6, pointCommitted: vip4, pointWhole: vip6, pointAnswer: vip4, pointAnswered: vip6, pointSent: vip4,
		pointPublish: vip6, pointPublished: vip4}
	for _, point := range []string{pointBegun, pointCommitted, pointWhole, pointAnswer, pointAnswered, pointSent} {
		t.Run("site "+point, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.takers(func(x *agentArgs) { x.Die, x.Cut = point, true }, nil)
			body := randomBody(size, 1)
			up := w.upload(vips[point], "/object.bin", body, "-H", "If-None-Match: *")
			ended := up.finish()
			if err := a.cmd.Wait(); err == nil {
				t.Fatal("the site has ended in order")
			}
			w.in("r", "ip link set a0 down")
			w.route("b")
			var word string
			b.ask("down a", &word)
			if got := <-ended; got != "Created\n201" {
				var r report
				b.ask("state", &r)
				t.Fatalf("answer %q; revivals %v, answers %v", got, r.Revivals, r.Answers)
			}
			w.once("b", b, "object.bin", body)
			w.noResets()
		})
	}
	for _, point := range []string{pointPublish, pointPublished} {
		t.Run("backup "+point, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.takers(nil, func(x *agentArgs) { x.Die = point })
			body := randomBody(size, 2)
			ended := w.upload(vips[point], "/object.bin", body, "-H", "If-None-Match: *").finish()
			if err := b.cmd.Wait(); err == nil {
				t.Fatal("the backup has ended in order")
			}
			var word string
			a.ask("down b", &word)
			if got := <-ended; got != "Created\n201" {
				t.Fatalf("answer %q", got)
			}
			w.once("a", a, "object.bin", body)
			if got := w.published("b", "object.bin"); point == pointPublished && !bytes.Equal(got, body) || point == pointPublish && got != nil {
				t.Errorf("the dead backup has published %d octets", len(got))
			}
			w.noResets()
		})
	}
}

// finish is end, later.
func (p *sender) finish() <-chan string {
	out := make(chan string, 1)
	go func() {
		got, err := p.end()
		if err != nil {
			got += " " + err.Error()
		}
		out <- got
	}()
	return out
}

// TestUploadOldOwner: a site is thought dead in the middle of an upload, and is not. The
// upload goes on where the client's packets come, and the old owner falls silent: it
// neither publishes nor resets.
func TestUploadOldOwner(t *testing.T) {
	w := newWorld(t)
	a, b := w.takers(func(x *agentArgs) { x.PullAfter = time.Hour }, nil)
	body := randomBody(4<<20, 3)
	up := w.upload(vip6, "/object.bin", body, "-H", "If-None-Match: *")
	up.give(len(body) / 2)
	var r report
	w.await("octets at the backup", func() bool { b.ask("state", &r); return r.Staged >= int64(len(body))/4 })
	var word string
	b.ask("down a", &word)
	w.route("b")
	if got := <-up.finish(); got != "Created\n201" {
		b.ask("state", &r)
		t.Fatalf("answer %q; revivals %v, answers %v", got, r.Revivals, r.Answers)
	}
	w.await("silence of the old owner", func() bool { a.ask("state", &r); return r.Sessions == 0 && r.Mine == 0 })
	w.once("b", b, "object.bin", body)
	if got := w.published("a", "object.bin"); got != nil || len(w.staged("a")) > 0 {
		t.Errorf("the old owner has published %d octets, staged %v", len(got), w.staged("a"))
	}
	w.noResets()
}

// TestUploadLost: with less than L2 an upload ends with its site. The client hears of it, and
// nothing is published anywhere.
func TestUploadLost(t *testing.T) {
	for _, x := range []struct{ name, freshness, vip string }{{"L0", FreshL0, vip4}, {"L1", FreshL1, vip6}} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t)
			level := func(y *agentArgs) { y.Freshness = x.freshness }
			a, b := w.takers(level, level)
			body := randomBody(4<<20, 4)
			up := w.upload(x.vip, "/object.bin", body)
			up.give(len(body) / 2)
			var r report
			w.await("octets at the site", func() bool { a.ask("state", &r); return r.Mine >= int64(len(body))/4 })
			w.lose("a", a)
			var word string
			b.ask("down a", &word)
			w.unpublished(up, "object.bin")
		})
	}
}

// unpublished wants that an upload fails, and that no site has the object.
func (w *world) unpublished(up *sender, name string) {
	w.t.Helper()
	if got, err := up.end(); err == nil || strings.Contains(got, "201") {
		w.t.Errorf("answer %q, %v: want an error", got, err)
	}
	for _, site := range []string{"a", "b"} {
		if got := w.published(site, name); got != nil {
			w.t.Errorf("%d octets are published at %s", len(got), site)
		}
	}
}

// TestUploadWithoutRoom: with freshness L2 an upload of a session that no site has room for
// is refused before anything of it is taken, and nothing of it is sent anywhere. One that
// was begun when there was room goes on.
func TestUploadWithoutRoom(t *testing.T) {
	for _, f := range families(1) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.takers(nil, func(x *agentArgs) { x.Capacity, x.Shed = 100, 100*time.Millisecond })
			body := randomBody(4<<20, 1)
			begun := w.upload(f.vip, "/begun.bin", body)
			given := make(chan struct{})
			go func() {
				defer close(given)
				begun.give(len(body) / 2)
			}()
			var r report
			w.await("octets at the backup", func() bool { b.ask("state", &r); return r.Staged >= int64(len(body))/4 })
			var word string
			b.ask("room 1", &word) // 95 % of it are none
			w.await("an upload without a backup", func() bool { a.ask("state", &r); return r.Reserved.Bare == 1 })
			w.await("nothing of it at who has no room", func() bool { b.ask("state", &r); return r.Staged == 0 && len(w.staged("b")) == 0 })
			got, err := w.upload(f.vip, "/refused.bin", body).end()
			if !strings.HasSuffix(got, "503") {
				t.Errorf("answer %q, %v: want 503", got, err)
			}
			if b.ask("state", &r); r.Staged != 0 {
				t.Errorf("%d octets of it at who has no room", r.Staged)
			}
			// It may have been asked before it was known that it has none.
			w.await("no file of it at who has no room", func() bool { return len(w.staged("b")) == 0 })
			<-given
			if got, err := begun.end(); got != "Created\n201" || err != nil {
				t.Errorf("begun before: %q, %v", got, err)
			}
			w.once("a", a, "begun.bin", body)
			b.ask("room 100", &word)
			w.await("a backup again", func() bool {
				got, err := w.upload(f.vip, "/after.bin", body[:1<<10]).end()
				return got == "Created\n201" && err == nil
			})
			w.noResets()
		})
	}
}
