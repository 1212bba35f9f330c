//go:build e2e

package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clientTLS puts a client's end of TLS over a connection.
func clientTLS(c net.Conn, caFile string) (net.Conn, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	t := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "video.test", MinVersion: tls.VersionTLS13})
	return t, t.Handshake()
}

// tlsSites starts both sites with a service over TLS.
func (w *world) tlsSites(export string) (a, b *process) {
	w.t.Helper()
	pairFor(w.t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
	return w.sites(func(x *agentArgs) { x.Export, x.Backups = export, true })
}

// TestTLSDrain: a site leaves under sessions over TLS. What transfers is pulled
// in the middle of its records, what rests is pushed, and each client has every
// byte right; both families at once.
func TestTLSDrain(t *testing.T) {
	w := newWorld(t)
	w.deadline = 300 * time.Millisecond
	x := w.object("film.mp4", 2<<20)
	x.CA = filepath.Join(w.dir, "video.test.crt")
	a, b := w.tlsSites(ExportGroup)
	var loads []*process
	const each = 25
	for _, f := range e2eFamilies {
		x.VIP, x.N = f.vip, each
		x.Pace, x.Buffer, x.Piece, x.Hold = 20*time.Millisecond, 16<<10, 0, 1<<20
		loads = append(loads, w.start("c", "load", x))
		x.Pace, x.Buffer, x.Piece, x.Hold = 1500*time.Millisecond, 0, 700<<10, 1
		loads = append(loads, w.start("c", "load", x))
	}
	var word string
	for _, l := range loads {
		l.next(&word)
	}
	w.route("b")
	a.ask("drain b", &word)
	for _, l := range loads {
		l.tell("end")
	}
	for _, l := range loads {
		w.finish(l, each)
	}
	var ra, rb report
	a.ask("state", &ra)
	b.ask("state", &rb)
	t.Logf("moved %d (took p50 %v p99 %v), results %v, stays %v", len(ra.Moved), quantile(ra.Moved, .5), quantile(ra.Moved, .99), ra.Results, ra.Errors)
	if len(ra.Moved) < 4*each*9/10 || ra.Results[resultLost] > 0 {
		t.Errorf("moved %d of %d sessions: %v, stays %v; strays at b %v", len(ra.Moved), 4*each, ra.Results, ra.Errors, rb.Strays)
	}
	w.noResets()
}

// TestTLSFlippedByte: the object at the site that would take over differs in one
// byte. It takes no session and sends no record; they go on at their owner.
func TestTLSFlippedByte(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 1<<20)
	x.CA = filepath.Join(w.dir, "video.test.crt")
	film, err := os.ReadFile(filepath.Join(w.dir, "root-b", "film.mp4"))
	if err != nil {
		t.Fatal(err)
	}
	film[500_000] ^= 1
	w.write("root-b/film.mp4", film)
	a, b := w.tlsSites(ExportGroup)
	x.VIP, x.N, x.Pace, x.Buffer, x.Hold = vip4, 10, 20*time.Millisecond, 16<<10, 512<<10
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	w.route("b")
	load.tell("end")
	w.finish(load, x.N)
	var ra, rb report
	a.ask("state", &ra)
	b.ask("state", &rb)
	if ra.Results[resultOK] > 0 || ra.Results[resultRefused] == 0 || ra.Errors["refused: "+errObject.Error()] == 0 || rb.Sessions > 0 {
		t.Errorf("results %v, stays %v, %d sessions at b: want refusals for the object alone", ra.Results, ra.Errors, rb.Sessions)
	}
	w.noResets()
}

// curl runs it with our CA and returns its output.
func curl(t testing.TB, prefix []string, ca, addr string, args ...string) ([]byte, error) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all := append(prefix, "curl", "-sSf", "--cacert", ca, "--resolve", "video.test:"+port+":"+host)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "URL", "https://video.test:"+port)
	}
	cmd := exec.CommandContext(ctx, all[0], append(all[1:], args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("curl %v: %w: %s", args, err, stderr.String())
	}
	return out, err
}

// TestTLSCurl: a client that is not ours, by each suite, whole, in ranges, many
// requests a connection; and by HTTP/2 where sessions stay.
func TestTLSCurl(t *testing.T) {
	film := random(3<<20 + 1)
	files := map[string][]byte{"film.mp4": film}
	sealed, kept := newTLSSite(t, ExportGroup, files), newTLSSite(t, ExportNone, files)
	ask := func(s *tlsSite, want []byte, args ...string) {
		t.Helper()
		got, err := curl(t, nil, filepath.Join(s.dir, "video.test.crt"), s.addr, append(args, "--interface", "127.0.0.1")...)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("curl %v: %d bytes, want %d, %v", args, len(got), len(want), err)
		}
	}
	for _, suite := range tls13 {
		only := []string{"--tls13-ciphers", suite, "--tlsv1.3"}
		ask(sealed, film, append(only, "URL/film.mp4")...)
		ask(sealed, film[77:2<<20], append(only, "-r", "77-2097151", "URL/film.mp4")...)
		ask(sealed, append(append([]byte("1.1 1 "), film...), "1.1 0 "...), append(only, "-w", "%{http_version} %{num_connects} ", "URL/film.mp4", "-o", "/dev/null", "URL/film.mp4")...)
	}
	ask(sealed, film, "--tls-max", "1.2", "URL/film.mp4")
	ask(kept, append(bytes.Clone(film), "2"...), "--http2", "-w", "%{http_version}", "URL/film.mp4")
	ask(kept, film[5:10], "--http2", "-r", "5-9", "URL/film.mp4")
	ask(kept, append(bytes.Clone(film), "1.1"...), "--http1.1", "-w", "%{http_version}", "URL/film.mp4")
}

// TestTLSKeyUpdate: OpenSSL's client updates its key (RFC 8446 section 4.6.3)
// and is answered under the next one; asked to update ours we close in order.
func TestTLSKeyUpdate(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing")
	}
	film := []byte("the film is short")
	s := newTLSSite(t, ExportGroup, map[string][]byte{"film.mp4": film})
	for _, tc := range []struct {
		command string
		answers int
	}{{"k", 2}, {"K", 1}} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := exec.CommandContext(ctx, "openssl", "s_client", "-connect", s.addr, "-tls1_3", "-servername", "video.test")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out := &growing{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ask := func() { fmt.Fprint(in, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n") }
		ask()
		until(t, "first answer", func() bool { return out.count(string(film)) == 1 })
		fmt.Fprintln(in, tc.command)
		until(t, "KEYUPDATE of "+tc.command, func() bool { return out.count("KEYUPDATE") == 1 })
		if tc.command == "k" {
			ask()
			until(t, "answer under the next key", func() bool { return out.count(string(film)) == 2 })
			in.Close()
		}
		err = cmd.Wait()
		in.Close()
		cancel()
		if err != nil || out.count(string(film)) != tc.answers || out.count("alert") > 0 {
			t.Errorf("%s: %d answers, want %d, %v; openssl says:\n%s", tc.command, out.count(string(film)), tc.answers, err, out)
		}
		s.wait(t)
	}
}

// growing is a program's output while it runs.
type growing struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (g *growing) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.Write(b)
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

func (g *growing) count(s string) int { return strings.Count(g.String(), s) }
