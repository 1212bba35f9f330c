//go:build e2e

package edge

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// sealedUpload begins a PUT of an object over TLS 1.3, by curl.
func (w *world) sealedUpload(vip, name string, body []byte, args ...string) *sender {
	w.t.Helper()
	return w.put("https://video.test:8080"+name, body, append([]string{"--tlsv1.3", "--http1.1",
		"--cacert", filepath.Join(w.dir, "video.test.crt"), "--resolve", "video.test:8080:" + inURL(vip)}, args...)...)
}

// sealedTakers are takers over TLS.
func (w *world) sealedTakers(forA, forB func(*agentArgs)) (a, b *process) {
	w.t.Helper()
	pairFor(w.t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
	over := func(change func(*agentArgs)) func(*agentArgs) {
		return func(x *agentArgs) {
			if x.Export = ExportGroup; change != nil {
				change(x)
			}
		}
	}
	return w.takers(over(forA), over(forB))
}

// TestUploadSealedSiteLoss: a site dies in the middle of an upload over TLS 1.3. The client,
// which is curl, sends on as if nothing had happened, and the object is whole at the other site.
func TestUploadSealedSiteLoss(t *testing.T) {
	runs, size := 1, 6<<20
	if soak() {
		runs, size = 5, 200<<20
	}
	for _, f := range e2eFamilies {
		for i := range runs {
			t.Run(fmt.Sprintf("%s, run %d", f.name, i+1), func(t *testing.T) {
				uploadLosesSite(t, size, uint64(i), func(w *world, body []byte) (a, b *process, up *sender) {
					a, b = w.sealedTakers(nil, nil)
					return a, b, w.sealedUpload(f.vip, "/new/object.bin", body)
				})
			})
		}
	}
}

// TestUploadSealedPoints: over TLS as TestUploadPoints. That the client takes the answer shows
// that the record number behind the upload has one text, whoever seals it.
func TestUploadSealedPoints(t *testing.T) {
	type point struct {
		at, vip string
		backup  bool // dies there, and not the site
	}
	points := []point{{pointBegun, vip6, false}, {pointCommitted, vip4, false}, {pointAnswered, vip6, false}, {pointPublished, vip4, true}}
	if soak() {
		points = append(points, point{pointWhole, vip6, false}, point{pointAnswer, vip4, false}, point{pointSent, vip4, false}, point{pointPublish, vip6, true})
	}
	for _, x := range points {
		t.Run(x.at, func(t *testing.T) {
			w := newWorld(t)
			die := func(y *agentArgs) { y.Die, y.Cut = x.at, !x.backup }
			forA, forB := die, die
			if x.backup {
				forA = nil
			} else {
				forB = nil
			}
			a, b := w.sealedTakers(forA, forB)
			dead, lives, word := a, b, ""
			if x.backup {
				dead, lives = b, a
			}
			body := randomBody(3<<20, 1)
			ended := w.sealedUpload(x.vip, "/object.bin", body, "-H", "If-None-Match: *").finish()
			if err := dead.cmd.Wait(); err == nil {
				t.Fatal("the site has ended in order")
			}
			name, other := "b", "a"
			if x.backup {
				name, other = "a", "b"
			} else {
				w.in("r", "ip link set a0 down")
				w.route("b")
			}
			lives.ask("down "+other, &word)
			if got := <-ended; got != "Created\n201" {
				var r report
				lives.ask("state", &r)
				t.Fatalf("answer %q; revivals %v, answers %v", got, r.Revivals, r.Answers)
			}
			w.once(name, lives, "object.bin", body)
			if !x.backup { // there curl may close before it has read the site's close_notify
				w.noResets()
			}
		})
	}
}

// TestUploadSealedOldOwner: a site is thought dead in the middle of an upload over TLS, and is
// not. It falls silent, and the other one publishes.
func TestUploadSealedOldOwner(t *testing.T) {
	w := newWorld(t)
	a, b := w.sealedTakers(func(x *agentArgs) { x.PullAfter = time.Hour }, nil)
	body := randomBody(4<<20, 3)
	up := w.sealedUpload(vip6, "/object.bin", body, "-H", "If-None-Match: *")
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
}

// TestUploadSealedDrain: a site drains in the middle of an upload over TLS, whose packets it is
// sent from where they arrive. The object is published once, at the site and its Backup.
func TestUploadSealedDrain(t *testing.T) {
	w := newWorld(t)
	a, b := w.sealedTakers(nil, nil)
	body := randomBody(4<<20, 5)
	up := w.sealedUpload(vip4, "/object.bin", body)
	up.give(len(body) / 2)
	var r report
	w.await("octets at the backup", func() bool { b.ask("state", &r); return r.Staged >= int64(len(body))/4 })
	w.route("b")
	var word string
	a.ask("drain b", &word)
	if got := <-up.finish(); got != "Created\n201" {
		t.Fatalf("answer %q", got)
	}
	w.once("a", a, "object.bin", body)
	w.once("b", b, "object.bin", body)
}

// TestUploadSealedKeyUpdate: a client, which is OpenSSL's, changes its key in the middle of
// an upload. The site dies behind that, and the other one reads on under the next key.
func TestUploadSealedKeyUpdate(t *testing.T) {
	w := newWorld(t)
	a, b := w.sealedTakers(nil, nil)
	body := bytes.Repeat([]byte("x"), 600_000)
	cmd := exec.Command("ip", "netns", "exec", w.prefix+"c", "openssl", "s_client", "-connect", inURL(vip6)+":8080", "-tls1_3", "-servername", "video.test")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &growing{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var r report
	part := func(from, upto int) {
		in.Write(body[from:upto])
		w.await("octets at the backup", func() bool { b.ask("state", &r); return r.Staged >= int64(upto) })
	}
	fmt.Fprintf(in, "PUT /object.bin HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body))
	part(0, 200_000)
	fmt.Fprintln(in, "k")
	w.await("another key", func() bool { return out.count("KEYUPDATE") == 1 })
	part(200_000, 400_000)
	w.lose("a", a)
	var word string
	b.ask("down a", &word)
	in.Write(body[400_000:])
	w.await("answer", func() bool { return out.count("201 Created") == 1 })
	w.once("b", b, "object.bin", body)
}

// TestUploadSealedKept: uploads and downloads follow each other on one connection over
// TLS, with and without the question whether to begin.
func TestUploadSealedKept(t *testing.T) {
	w := newWorld(t)
	_, b := w.sealedTakers(nil, nil)
	bodies := map[string][]byte{"one.bin": randomBody(2<<20, 6), "two.bin": randomBody(70_001, 7), "three.bin": randomBody(5, 8)}
	each := []string{"-sSg", "--tlsv1.3", "--http1.1", "--max-time", "60",
		"--cacert", filepath.Join(w.dir, "video.test.crt"), "--resolve", "video.test:8080:" + inURL(vip4), "-w", " %{http_code} %{num_connects}\n"}
	args := append([]string{"netns", "exec", w.prefix + "c", "curl"}, each...)
	for _, name := range []string{"one.bin", "two.bin", "three.bin"} {
		w.write("src/"+name, bodies[name])
		args = append(args, "-T", filepath.Join(w.dir, "src", name), "https://video.test:8080/"+name)
	}
	args = append(append(append(args, "--next"), each...), "-o", "/dev/null", "https://video.test:8080/film.mp4")
	args = append(append(append(args, "--next"), each...), "-T", filepath.Join(w.dir, "src", "two.bin"), "https://video.test:8080/one.bin")
	got, err := exec.Command("ip", args...).CombinedOutput()
	if want := "Created\n 201 1\nCreated\n 201 0\nCreated\n 201 0\n 200 0\n 204 0\n"; string(got) != want || err != nil {
		t.Errorf("curl says %q, %v, want %q", got, err, want)
	}
	bodies["one.bin"] = bodies["two.bin"]
	for name, body := range bodies {
		for _, site := range []string{"a", "b"} {
			w.await("object at "+site, func() bool { return bytes.Equal(w.published(site, name), body) })
		}
	}
	var r report
	if b.ask("state", &r); r.Effects != 4 {
		t.Errorf("%d effects at the Backup", r.Effects)
	}
}

// TestUploadSealedSmallWindow: a client that may have two segments under way, a fraction of a
// record. It goes on since what is there of a record is kept and acknowledged; its site dies
// in the middle of one.
func TestUploadSealedSmallWindow(t *testing.T) {
	w := newWorld(t)
	a, b := w.sealedTakers(nil, nil)
	w.in("c", "ip route change default via 198.51.100.1 cwnd lock 2")
	body := randomBody(150_000, 9)
	up := w.sealedUpload(vip4, "/object.bin", body)
	given := make(chan struct{})
	go func() {
		defer close(given)
		up.give(len(body) / 2)
	}()
	var r report
	w.await("octets at the backup", func() bool { b.ask("state", &r); return r.Staged >= int64(len(body))/4 })
	w.lose("a", a)
	var word string
	b.ask("down a", &word)
	<-given
	if got, err := up.end(); got != "Created\n201" || err != nil {
		b.ask("state", &r)
		t.Fatalf("answer %q, %v; revivals %v, answers %v", got, err, r.Revivals, r.Answers)
	}
	w.once("b", b, "object.bin", body)
}

// TestUploadUnsealed: a client of TLS 1.2, whose session nobody can go on with, is told by 405 that objects are not taken
// so, and has what it asks for otherwise; nothing of its upload is staged at either site. One of TLS 1.3 uploads meanwhile.
func TestUploadUnsealed(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.sealedTakers(nil, nil)
			body := randomBody(300_000, 10)
			other := w.sealedUpload(f.vip, "/other.bin", body)
			other.give(len(body) / 2)
			var mine, backup report
			w.await("octets at the backup", func() bool { b.ask("state", &backup); return backup.Staged >= int64(len(body))/4 })
			old := []string{"--tls-max", "1.2", "--cacert", filepath.Join(w.dir, "video.test.crt"), "--resolve", "video.test:8080:" + inURL(f.vip)}
			for _, http := range []string{"--http1.1", "--http2"} {
				head := filepath.Join(w.dir, "head")
				got, err := w.put("https://video.test:8080/old.bin", body[:1000], append([]string{http, "-D", head}, old...)...).end()
				if got != "Method Not Allowed\n405" || err != nil {
					t.Errorf("%s: answer %q, %v", http, got, err)
				}
				if b, err := os.ReadFile(head); err != nil || !bytes.Contains(bytes.ToLower(b), []byte("\nallow: get, head\r\n")) {
					t.Errorf("%s: head %q, %v", http, b, err)
				}
				args := append([]string{"netns", "exec", w.prefix + "c", "curl", "-sSg", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", http}, old...)
				if got, err := exec.Command("ip", append(args, "https://video.test:8080/film.mp4")...).CombinedOutput(); string(got) != "200 1024" || err != nil {
					t.Errorf("%s: a download is answered by %q, %v", http, got, err)
				}
			}
			for _, site := range []string{"a", "b"} {
				if got := w.staged(site); len(got) != 1 {
					t.Errorf("staged at %s: %v, want the other upload alone", site, got)
				}
				if got := w.published(site, "old.bin"); got != nil {
					t.Errorf("%d octets are published at %s", len(got), site)
				}
			}
			if got, err := other.end(); got != "Created\n201" || err != nil {
				t.Errorf("the other upload: %q, %v", got, err)
			}
			w.once("b", b, "other.bin", body)
			if a.ask("state", &mine); mine.Uploads["201"] != 1 || mine.Uploads["405"] != 0 {
				t.Errorf("uploads ended %v, want one by 201", mine.Uploads)
			}
		})
	}
}
