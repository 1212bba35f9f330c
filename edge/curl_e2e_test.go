//go:build e2e

package edge

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// reader is curl at the client, whose output the test reads: what the test does not
// take waits in the pipe, then in the kernel, then at the site. So a download lasts
// for as long as a test needs it, on any machine.
type reader struct {
	t      testing.TB
	cmd    *exec.Cmd
	out    io.ReadCloser
	stderr bytes.Buffer
	sum    hash.Hash
	taken  int
}

// curl begins a download, and returns when its first byte is there.
func (w *world) curl(args ...string) *reader {
	w.t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		w.t.Fatal("curl is missing")
	}
	r := &reader{t: w.t, sum: sha256.New(),
		cmd: exec.Command("ip", append([]string{"netns", "exec", w.prefix + "c", "curl", "-sSgf", "--max-time", "80"}, args...)...)}
	r.cmd.Stderr = &r.stderr
	var err error
	if r.out, err = r.cmd.StdoutPipe(); err != nil {
		w.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	r.take(1)
	return r
}

// sealedCurl downloads the film over TLS 1.3 by one suite.
func (w *world) sealedCurl(vip, suite string) *reader {
	w.t.Helper()
	const at = "video.test:8080"
	if strings.Contains(vip, ":") {
		vip = "[" + vip + "]"
	}
	return w.curl("--cacert", filepath.Join(w.dir, "video.test.crt"), "--resolve", at+":"+vip,
		"--tls13-ciphers", suite, "--tlsv1.3", "https://"+at+"/film.mp4")
}

// take reads so many bytes.
func (r *reader) take(n int64) {
	r.t.Helper()
	m, err := io.CopyN(r.sum, r.out, n)
	if r.taken += int(m); err != nil {
		r.t.Fatalf("curl: %d bytes, then %v: %s", r.taken, err, r.stderr.String())
	}
}

// rest reads to the end, and says what was wrong.
func (r *reader) rest(hash string) error {
	m, err := io.Copy(r.sum, r.out)
	r.taken += int(m)
	if wait := r.cmd.Wait(); wait != nil || err != nil {
		return fmt.Errorf("%v: %d bytes, %v, %v: %s", r.cmd.Args, r.taken, err, wait, r.stderr.String())
	}
	if got := fmt.Sprintf("%x", r.sum.Sum(nil)); got != hash {
		return fmt.Errorf("%v: %d bytes are others", r.cmd.Args, r.taken)
	}
	return nil
}

// movedOf waits until a site has given all these downloads away, while they run: no
// further than their first half, so that none can end before.
func (w *world) movedOf(p *process, size int64, all ...*reader) {
	w.t.Helper()
	w.await("hand-off of all downloads", func() bool {
		for _, r := range all {
			if int64(r.taken) < size/2 {
				r.take(16 << 10)
			}
		}
		var r report
		p.ask("state", &r)
		return r.Results[resultOK] >= len(all)
	})
}

// TestCurl moves the session of a client that is not ours.
func TestCurl(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 8<<20)
			a, _ := w.sites(nil)
			c := w.curl("http://" + net.JoinHostPort(f.vip, "8080") + "/film.mp4")
			w.route("b")
			w.movedOf(a, x.Size, c)
			if err := c.rest(x.HashHex); err != nil {
				t.Error(err)
			}
			var r report
			if a.ask("state", &r); r.Results[resultOK] != 1 {
				t.Errorf("results %v %v", r.Results, r.Errors)
			}
		})
	}
}

// tls13 are the suites by the names that curl knows.
var tls13 = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

// TestTLSCurlMoves: curl by each suite and family, its session moved under it.
func TestTLSCurlMoves(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 4<<20)
	a, _ := w.tlsSites(ExportGroup)
	var all []*reader
	for _, f := range e2eFamilies {
		for _, suite := range tls13 {
			all = append(all, w.sealedCurl(f.vip, suite))
		}
	}
	w.route("b")
	w.movedOf(a, x.Size, all...)
	for _, c := range all {
		if err := c.rest(x.HashHex); err != nil {
			t.Error(err)
		}
	}
	var r report
	if a.ask("state", &r); r.Results[resultOK] != len(all) || r.Results[resultLost] > 0 {
		t.Errorf("of %d sessions: %v, stays %v; want all moved and none lost", len(all), r.Results, r.Errors)
	}
	// No count of resets: curl closes without waiting for our close_notify.
}
