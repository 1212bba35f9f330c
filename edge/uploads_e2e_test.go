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
	if strings.Contains(vip, ":") {
		vip = "[" + vip + "]"
	}
	all := append([]string{"netns", "exec", w.prefix + "c", "curl", "-sSg", "--max-time", "80", "-T", "-", "-H", "Transfer-Encoding:",
		"-H", "Content-Length: " + strconv.Itoa(len(body)), "-w", "%{http_code}"}, args...)
	p := &sender{t: w.t, body: body, cmd: exec.Command("ip", append(all, "http://"+vip+":8080"+name)...)}
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

func (w *world) takers(change func(*agentArgs)) (a, b *process) {
	w.object("film.mp4", 1<<10)
	return w.sites(func(x *agentArgs) {
		x.Backups, x.Uploads, x.Freshness = true, true, FreshL2
		change(x)
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
				w := newWorld(t)
				a, b := w.takers(func(*agentArgs) {})
				body := randomBody(size, uint64(i))
				up := w.upload(f.vip, "/new/object.bin", body)
				up.give(size / 2)
				var r report
				w.await("octets at the backup", func() bool { b.ask("state", &r); return r.Staged >= int64(size)/4 })
				var word string
				w.lose("a", a)
				begun := time.Now()
				b.ask("down a", &word)
				got, err := up.end()
				took := time.Since(begun)
				if b.ask("state", &r); got != "Created\n201" || err != nil {
					t.Fatalf("answer %q, %v; revivals %v, answers %v", got, err, r.Revivals, r.Answers)
				}
				t.Logf("%d octets at the backup when its site died, whole %v later; revivals %v", r.Staged, took, r.Revivals)
				if sha256.Sum256(w.published("b", "new/object.bin")) != sha256.Sum256(body) {
					t.Error("the object at the backup is another")
				}
				if got := w.published("a", "new/object.bin"); got != nil {
					t.Errorf("the dead site has published %d octets", len(got))
				}
				if left := w.staged("b"); len(left) > 0 {
					t.Errorf("left in the staging directory: %v", left)
				}
				if r.Uploads["201"] != 1 || r.Revivals[reviveOK] != 1 {
					t.Errorf("uploads %v, revivals %v: want one", r.Uploads, r.Revivals)
				}
				w.noResets()
			})
		}
	}
}
