//go:build e2e

package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/token"
)

const resumePort = 8443

// storyRole is the origin: a film of 20 MB, and a story that is told on command.
func storyRole() error {
	s := &story{more: make(chan struct{}), film: make([]byte, 20<<20)}
	if _, err := rand.NewChaCha8([32]byte{filmSeed}).Read(s.film); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", originAddr)
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(ln, s) }()
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	out.Encode("ready")
	for in.Scan() {
		switch verb, arg, _ := strings.Cut(in.Text(), " "); verb {
		case "tell":
			n, err := strconv.Atoi(arg)
			if err != nil {
				return err
			}
			s.tell(n)
		case "asked":
			s.mu.Lock()
			out.Encode(s.asked)
			s.mu.Unlock()
		}
	}
	return in.Err()
}

// resumeArgs start a site, or the clients of one address.
type resumeArgs struct{ Site, Other, Dir, VIP string }

// resumeSiteRole is a site with the whole agent, as the program runs it.
func resumeSiteRole() error {
	var x resumeArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	cfg, err := agentArgs{Site: x.Site, Other: x.Other, Dir: x.Dir, Mode: ModeAct, Export: ExportNone, Origin: "http://" + originAddr}.config()
	if err != nil {
		return err
	}
	cfg.Services[0].VIPs = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(vip4), resumePort), netip.AddrPortFrom(netip.MustParseAddr(vip6), resumePort)}
	cfg.Services[0].Events, cfg.Tokens = Events{Path: "/live/"}, []token.Secret{{7, 7, 7}}
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	a, err := New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	out.Encode("started")
	for in.Scan() { // any word asks for the counts
		counts := map[string]float64{}
		families, err := reg.Gather()
		if err != nil {
			return err
		}
		for _, f := range families {
			if f.GetName() == "rhumb_edge_stream_requests_total" {
				for _, m := range f.Metric {
					for _, l := range m.Label {
						if l.GetName() == "result" {
							counts[l.GetValue()] += m.Counter.GetValue()
						}
					}
				}
			}
		}
		out.Encode(counts)
	}
	cancel()
	return errors.Join(in.Err(), <-ended)
}

// followed is what one client saw.
type followed struct {
	Kind, Err            string
	Begin, Resume, Dials int32         // round trips, connections
	Stall                time.Duration // until the first byte or event after the word
}

// followRole reads all three kinds at one address: a line when each has begun, and one
// with what they saw after the word to go on.
func followRole() error {
	var x resumeArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(x.Dir, "video.test.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := func() *http.Transport {
		return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(x.VIP, fmt.Sprint(resumePort)))
		}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	defer cancel()
	if err := warmed(ctx, transport()); err != nil {
		return err
	}
	all, err := followers(ctx, 20<<20, transport)
	if err != nil {
		return err
	}
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for _, f := range all {
		if err := f.read(f.begun); err != nil {
			return err
		}
	}
	out.Encode("begun")
	in.Scan()
	saw, began := make([]followed, len(all)), time.Now()
	var wg sync.WaitGroup
	for i, f := range all {
		saw[i] = followed{Kind: f.kind, Begin: f.rounds.Load()}
		wg.Go(func() {
			err := f.read(1)
			saw[i].Stall = time.Since(began)
			if err = errors.Join(err, f.read(f.whole-f.begun-1), f.end()); err != nil {
				saw[i].Err = err.Error()
			}
			saw[i].Resume, saw[i].Dials = f.rounds.Load()-saw[i].Begin, f.connections.Load()
		})
	}
	wg.Wait()
	out.Encode(saw)
	in.Scan()
	return nil
}

// warmed waits until the site has the film whole.
func warmed(ctx context.Context, tr *http.Transport) error {
	defer tr.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://video.test/film.mp4", nil)
		if err != nil {
			return err
		}
		resp, err := tr.RoundTrip(req)
		if err == nil {
			if resp.Body.Close(); resp.Header.Get("ETag") != "" {
				return nil
			}
		}
		select { // the site may not listen yet
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// TestResumeAtAnotherSite: the process of a site is killed in the middle of downloads,
// event streams and WebSockets, of both families at once, and the routes lead to the
// other site, which has seen none of them and has no film yet. Each goes on at the very
// byte or event, with one new connection and as many round trips as a plain request takes.
func TestResumeAtAnotherSite(t *testing.T) {
	w := newWorld(t)
	w.small("c") // else a fast client's kernel may take the whole film before the site dies
	pairFor(t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
	var word string
	origin := w.start("r", "story", nil)
	origin.next(&word)
	a := w.start("a", "resume-site", resumeArgs{Site: "a", Other: "b", Dir: w.dir})
	b := w.start("b", "resume-site", resumeArgs{Site: "b", Other: "a", Dir: w.dir})
	a.next(&word)
	b.next(&word)
	origin.tell(fmt.Sprint("tell ", stories/3))
	var clients []*process
	for _, f := range e2eFamilies {
		clients = append(clients, w.start("c", "follow", resumeArgs{Dir: w.dir, VIP: f.vip}))
	}
	for _, c := range clients {
		c.next(&word)
	}
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = a.cmd.Wait() // else it could say yet which epoch it knows
	w.route("b")
	for _, c := range clients {
		c.tell("go on")
	}
	origin.tell(fmt.Sprint("tell ", stories-stories/3))
	for i, c := range clients {
		var saw []followed
		c.next(&saw)
		for _, f := range saw {
			t.Logf("%s, %s: %d round trips to begin, %d to resume, first byte or event after %s", e2eFamilies[i].vip, f.Kind, f.Begin, f.Resume, f.Stall)
			if f.Err != "" || f.Dials != 2 || f.Begin != plainTrips || f.Resume > plainTrips+1 {
				t.Errorf("%s, %s: %d round trips to begin and %d to resume, over %d connections, error %q: want %d, at most %d, 2 and none",
					e2eFamilies[i].vip, f.Kind, f.Begin, f.Resume, f.Dials, f.Err, plainTrips, plainTrips+1)
			}
		}
	}
	var asked []string
	origin.ask("asked", &asked)
	want := fmt.Sprintf("n%d", stories/3)
	n := 0
	for _, last := range asked {
		if last == want {
			n++
		}
	}
	if len(asked) != 8 || n != 4 {
		t.Errorf("the origin was asked for streams behind %q, want four from the beginning and four from %s", asked, want)
	}
	counts := map[string]float64{}
	b.ask("count", &counts)
	// Of two keepers one is dead, so there is no majority.
	if counts["unsure"] != 4 || len(counts) != 1 {
		t.Errorf("the other site counts %v, want 4 unsure", counts)
	}
}
