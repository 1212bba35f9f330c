//go:build e2e

package forward

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhumb/internal/browser"
)

// TestBrowserUnderFlips has Chromium fetch and put over HTTP/2 and TLS, from a stock
// nginx, in four lanes, while the route flips every 2 seconds for a minute and then
// stays at the other site: no fetch fails in the page, all go over one connection,
// which was never made anew, and the site that left serves them to the end.
// It runs in the long form; TestServersUnderFlips has clients of our own and curl.
func TestBrowserUnderFlips(t *testing.T) {
	if !soak() {
		t.Log("Chromium fetches with RHUMB_SOAK=1; TestServersUnderFlips has clients of our own and curl")
		return
	}
	for _, vip := range []string{vip4, vip6} {
		t.Run(vip, func(t *testing.T) {
			const flips = 30
			l := newServersLab(t)
			l.startAgents(t, true)
			b := l.browse(t, vip)
			l.fetched(t, b, 20)
			opens, resets := l.client.counter(t, "snmp", "Tcp", "ActiveOpens"), l.client.counter(t, "snmp", "Tcp", "EstabResets")
			for i := range flips {
				began := time.Now()
				l.routeTo(t, []*site{l.b, l.a}[i%2])
				l.fetched(t, b, 8)
				time.Sleep(time.Until(began.Add(2 * time.Second)))
			}
			flipped := l.fetched(t, b, 0)
			l.a.agent.tell(t, "announce")
			l.routeTo(t, l.b)
			l.fetched(t, b, 100)
			if err := b.Eval("again.stop = true", nil); err != nil {
				t.Fatal(err)
			}
			if err := b.Until(patience, "again.lanes === 0"); err != nil {
				t.Error(err)
			}
			f := l.fetched(t, b, 0)
			if n := l.client.counter(t, "snmp", "Tcp", "ActiveOpens") - opens; n != 0 {
				t.Errorf("the client made %d connections anew, want none", n)
			}
			if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - resets; n != 0 {
				t.Errorf("%d connections of the client were reset, want none", n)
			}
			checkFetched(t, b, f)
			forwarded := l.b.agent.tell(t, "stats").Metrics["forwarded_packets_total a"]
			t.Logf("%d requests under %d flips, %d more when drained, %.1f MB, the slowest took %d ms; %.0f packets forwarded", flipped.Done, flips,
				f.Done-flipped.Done, float64(f.Octets)/1e6, f.Slowest.Lasted().Milliseconds(), forwarded)
			if forwarded < 100 {
				t.Error("hardly anything was forwarded: the test proves nothing")
			}
			conn, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := get(t, conn, "/site"); got != "b" {
				t.Errorf("a new connection is served by %q, want b", got)
			}
			l.unguarded(t, b)
		})
	}
}

// browse opens the page that fetches again and again, at the client. When the test
// ends it leaves a picture and the log of the page beside the binary.
func (l *lab) browse(t *testing.T, vip string) *browser.Browser {
	t.Helper()
	page, err := browser.Page("again.html")
	if err == nil {
		err = os.WriteFile(filepath.Join(l.dir, "again.html"), page, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	trust, err := browser.Trust(filepath.Join(l.dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := browser.Start(browser.Options{Args: []string{trust},
		Start: func(cmd *exec.Cmd) error { return l.client.do(cmd.Start) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leave(t, b)
		b.Close()
	})
	sum := fnv.New32a()
	sum.Write(bytes.Repeat([]byte("rhumb..."), chunkSize/8))
	at := netip.AddrPortFrom(netip.MustParseAddr(vip), nginxTLS)
	if err := b.Open(fmt.Sprintf("https://%s/again.html?path=chunk.bin&octets=%d&sum=%08x&lanes=4", strings.TrimSuffix(at.String(), ":443"), chunkSize, sum.Sum32())); err != nil {
		t.Fatal(err)
	}
	return b
}

// fetched waits until the page has made so many requests more, and fails with its
// log when one went wrong.
func (l *lab) fetched(t *testing.T, b *browser.Browser, more int) browser.Fetched {
	t.Helper()
	f, err := b.Fetched()
	if err == nil && more > 0 {
		err = b.Until(patience, fmt.Sprintf("again.done >= %d || again.log.length > 0", f.Done+more))
	}
	if err == nil {
		f, err = b.Fetched()
	}
	if err != nil || len(f.Log) > 0 {
		s := l.b.agent.tell(t, "stats")
		t.Fatalf("want %d more requests without an error; seen: %d done, %d errors (%v); b: %v; the page's log:\n%s", more, f.Done, len(f.Log), err, s.Metrics, f.Log)
	}
	return f
}

// checkFetched wants every request served by a, in HTTP/2 and over one connection.
func checkFetched(t *testing.T, b *browser.Browser, f browser.Fetched) {
	t.Helper()
	if f.Sites["a"] != f.Done || len(f.Sites) != 1 {
		t.Errorf("of %d requests these were served by: %v; want all by a", f.Done, f.Sites)
	}
	all := b.Exchanges()
	for _, x := range all {
		if x.Err != "" || x.Protocol != "h2" || x.Status >= 300 {
			t.Errorf("%s: want h2 and success", x)
		}
	}
	if c := browser.Connections(all); len(c) != 1 || len(all) < f.Done {
		t.Errorf("%d exchanges over the connections %v, want %d over one", len(all), c, f.Done)
	}
}

// unguarded goes on without the forwarder at b: the browser has to connect anew, or
// the count of connections would prove nothing. It may hide a reset from the page.
func (l *lab) unguarded(t *testing.T, b *browser.Browser) {
	t.Helper()
	opens := l.client.counter(t, "snmp", "Tcp", "ActiveOpens")
	if err := l.b.agent.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.b.agent.cmd.Wait()
	l.b.agent = nil
	if err := b.Eval("again.stop = false, lane(0), 0", nil); err != nil {
		t.Fatal(err)
	}
	if !l.poll(func() bool { return l.client.counter(t, "snmp", "Tcp", "ActiveOpens") > opens }) {
		t.Errorf("the forwarder at b is dead, and the browser's connection lives on for %s; want it reset", patience)
	}
}

// leave keeps a picture of the page and its log.
func leave(t *testing.T, b *browser.Browser) {
	dir := filepath.Join("..", "..", "bin", "e2e")
	name := filepath.Join(dir, strings.NewReplacer("/", "-", ":", "_").Replace(t.Name()))
	f, err := b.Fetched()
	png, shotErr := b.Screenshot()
	text := fmt.Sprintf("%s\n%d requests, served by %v, %d errors\n%s", t.Name(), f.Done, f.Sites, len(f.Log), f.Log)
	if err := errors.Join(err, shotErr, os.MkdirAll(dir, 0o755), os.WriteFile(name+".txt", []byte(text), 0o644), os.WriteFile(name+".png", png, 0o644)); err != nil {
		t.Error(err)
	}
}
