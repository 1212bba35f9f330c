package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/feed"
	"rhumb/edge/frame"
	"rhumb/edge/token"
)

// group are sites which serve one service at loopback addresses, and ask each other
// over links of their own, all in this process.
type group struct {
	t     testing.TB
	sites []*member
	roots *x509.CertPool
	now   atomic.Int32 // where the name leads
	dials atomic.Int32
}

type member struct {
	*Agent
	addr string
	met  atomic.Int32 // requests
	asks atomic.Int32 // of other sites, about epochs
	kill func()
	rt   *http.Transport // to this site alone
}

// newGroup makes n sites. A nil source is a directory, dir/root.
func newGroup(t testing.TB, n int, dir, origin string, strict bool) *group {
	t.Helper()
	pair := pairFor(t, dir, "video.test", 1, time.Now().Add(time.Hour))
	g := &group{t: t, roots: x509.NewCertPool()}
	g.roots.AddCert(pair.Leaf)
	names, pool := []string{"a", "b", "c"}[:n], x509.NewCertPool()
	var own []tls.Certificate
	var peers []Peer
	var doors []net.Listener
	for i, name := range names {
		own = append(own, pairFor(t, dir, name, int64(i+2), time.Now().Add(time.Hour)))
		pool.AddCert(own[i].Leaf)
		doors = append(doors, listenLoopback(t))
		peers = append(peers, Peer{Name: name, Control: netip.MustParseAddrPort(doors[i].Addr().String())})
	}
	for i, name := range names {
		front := listenLoopback(t)
		svc := Service{Name: "video", Kind: KindContent, Mode: ModeAct, VIPs: []netip.AddrPort{netip.MustParseAddrPort(front.Addr().String())},
			Cert: filepath.Join(dir, "video.test.crt"), Key: filepath.Join(dir, "video.test.key")}
		if svc.Root = filepath.Join(dir, "root"); origin != "" {
			svc.Root, svc.Origin, svc.Spool, svc.Events = "", origin, filepath.Join(dir, "spool", name), Events{Path: "/live/", Strict: strict}
		}
		m := &member{addr: front.Addr().String()}
		a, err := New(Config{Site: name, Control: peers[i].Control, Log: slog.New(slog.DiscardHandler), Tokens: []token.Secret{{1, 2, 3}},
			TLS: &tls.Config{Certificates: []tls.Certificate{own[i]}, RootCAs: pool, ClientCAs: pool},
			Met: func(string, bool) { m.met.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		// As if the group had been there for long. A site that is there answers, however
		// busy the machine; one that is not refuses.
		a.keepers, err = feed.NewKeepers(feed.KeepersConfig{Site: name, Links: tokenLinks{a.links}, Secrets: a.cfg.Tokens,
			Since: time.Now().Add(-time.Hour), Room: 1000, Patience: time.Minute})
		a.links.patience = time.Minute
		others := slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.Name == name })
		if err := errors.Join(err, a.SetPeers(others), a.SetServices([]Service{svc})); err != nil {
			t.Fatal(err)
		}
		m.Agent = a
		m.run(t, doors[i], front)
		g.sites = append(g.sites, m)
	}
	return g
}

func listenLoopback(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// run serves until kill, which closes all that is open, as a machine's end would.
func (m *member) run(t testing.TB, door, front net.Listener) {
	a := m.Agent
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	a.links.handle = func(l *link, f frame.Frame) {
		if f.Type == frame.Tokens && token.Kind(f.Payload[0]) == token.Ask {
			m.asks.Add(1)
		}
		a.handle(ctx, l, f)
	}
	wg.Go(func() { _ = a.links.serve(ctx, door) })
	wg.Go(func() { a.accept(ctx, front) })
	for _, r := range a.view.Load().services[0].keeps() {
		wg.Go(func() { _ = r.Run(ctx) })
	}
	m.kill = sync.OnceFunc(func() {
		cancel()
		front.Close()
		wg.Wait()
		a.wg.Wait()
	})
	t.Cleanup(m.kill)
}

// transport resolves every name to the site where it leads just now, from an address
// that is not the site's.
func (g *group) transport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			g.dials.Add(1)
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
			c, err := d.DialContext(ctx, "tcp", g.sites[g.now.Load()].addr)
			if err == nil { // what the kernel holds needs no other site
				err = c.(*net.TCPConn).SetReadBuffer(64 << 10)
			}
			return c, err
		}}
}

// get asks one site for an event stream. The body is to be closed.
func (g *group) get(site int, path, last string, header ...string) *http.Response {
	g.t.Helper()
	m := g.sites[site]
	if m.rt == nil { // one connection, that the handshakes do not take all the time
		m.rt = g.transport()
		m.rt.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", m.addr)
		}
		g.t.Cleanup(m.rt.CloseIdleConnections)
	}
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	g.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://video.test"+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := m.rt.RoundTrip(req)
	if err != nil {
		g.t.Fatalf("site %d, %s: %v", site, path, err)
	}
	return resp
}

// first reads the token with which a stream begins, and closes it.
func (g *group) first(resp *http.Response) string {
	g.t.Helper()
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	text, ok := strings.CutPrefix(strings.TrimSpace(line), "id: ")
	if resp.StatusCode != http.StatusOK || !ok || err != nil || len(text) > token.MaxText {
		g.t.Fatalf("status %d, first line %q, %v: want a token", resp.StatusCode, line, err)
	}
	return text
}

func (g *group) requests() (n int32) {
	for _, m := range g.sites {
		n += m.met.Load()
	}
	return n
}

// story is an origin: a log of numbered events, of which each request gets those
// behind its Last-Event-ID, and then what is told later.
type story struct {
	*httptest.Server
	mu     sync.Mutex
	told   int
	more   chan struct{} // closed and replaced when there is more
	asked  []string      // Last-Event-ID of each request
	heard  []string      // messages of clients, over WebSockets
	film   []byte
	leaked atomic.Bool // a token or a client's key reached the origin
}

func newStory(t testing.TB) *story {
	s := &story{more: make(chan struct{})}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Server.Close)
	return s
}

func (s *story) tell(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told += n
	close(s.more)
	s.more = make(chan struct{})
}

func (s *story) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Rhumb-Client") != "" || len(r.Header.Get("Last-Event-ID")) > 20 {
		s.leaked.Store(true)
	}
	switch r.URL.Path {
	case "/film.mp4":
		rw.Header().Set("ETag", `"one"`)
		http.ServeContent(rw, r, "film.mp4", time.Time{}, bytes.NewReader(s.film))
		return
	case "/live/broken":
		http.Error(rw, "no", http.StatusInternalServerError)
		return
	case "/live/page":
		fmt.Fprint(rw, "<p>a page")
		return
	}
	last, _ := strconv.Atoi(strings.TrimPrefix(r.Header.Get("Last-Event-ID"), "n"))
	s.mu.Lock()
	s.asked = append(s.asked, r.Header.Get("Last-Event-ID"))
	s.mu.Unlock()
	if r.Header.Get("Upgrade") != "" {
		s.talk(rw, r, last)
		return
	}
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.WriteHeader(http.StatusOK)
	s.follow(last, r.Context().Done(), func(n int) error {
		_, err := fmt.Fprintf(rw, "id: n%d\ndata: %d\n\n", n, n)
		return err
	}, func() { _ = http.NewResponseController(rw).Flush() })
}

// follow tells what comes behind an event until the client has gone.
func (s *story) follow(last int, gone <-chan struct{}, tell func(n int) error, flush func()) {
	for {
		s.mu.Lock()
		told, more := s.told, s.more
		s.mu.Unlock()
		for ; last < told; last++ {
			if tell(last+1) != nil {
				return
			}
		}
		flush()
		select {
		case <-more:
		case <-gone:
			return
		}
	}
}

// TestStaleEpochRefused: a token which somebody has gone on from is refused, at each
// site, each time; also when a site has died.
func TestStaleEpochRefused(t *testing.T) {
	s := newStory(t)
	g := newGroup(t, 3, t.TempDir(), s.URL, false)
	refused := 0
	for i := range 100 {
		if i == 80 {
			g.sites[2].kill()
		}
		n := 3
		if i >= 80 {
			n = 2
		}
		here, there, third := i%n, (i+1)%n, (i+rand.IntN(n))%n
		old := g.first(g.get(here, "/live/a", ""))
		next := g.first(g.get(there, "/live/a", old)) // the resumption
		resp := g.get(third, "/live/a", old)
		resp.Body.Close()
		if resp.StatusCode == http.StatusConflict {
			refused++
		} else {
			t.Errorf("round %d: token of site %d, resumed at %d, shown again at %d: status %d, want %d", i, here, there, third, resp.StatusCode, http.StatusConflict)
		}
		if i%10 == 0 { // the refusal has cost the rightful one nothing
			g.first(g.get(third, "/live/a", next))
		}
	}
	if refused != 100 {
		t.Errorf("%d of 100 stale tokens were refused", refused)
	}
}

// TestTokenRefused: what is not this stream's token is answered by its status, and a
// token which came to nothing is good again.
func TestTokenRefused(t *testing.T) {
	s := newStory(t)
	g := newGroup(t, 3, t.TempDir(), s.URL, false)
	const key = "0123456789abcdef"
	tok := g.first(g.get(0, "/live/a", ""))
	bound := g.first(g.get(0, "/live/a", "", "Rhumb-Client", key+";try=1"))
	for _, c := range []struct {
		name, path, last string
		header           []string
		want             int
	}{
		{"another stream", "/live/b", tok, nil, http.StatusForbidden},
		{"another query", "/live/a?x=1", tok, nil, http.StatusForbidden},
		{"the origin's own id", "/live/a", "n5", nil, http.StatusBadRequest},
		{"changed", "/live/a", tok[:60] + "AAAA" + tok[64:], nil, http.StatusForbidden},
		{"another client", "/live/a", bound, []string{"Rhumb-Client", "fedcba9876543210;try=1"}, http.StatusForbidden},
		{"no client", "/live/a", bound, nil, http.StatusForbidden},
		{"broken client", "/live/a", tok, []string{"Rhumb-Client", key}, http.StatusBadRequest},
		{"endless tries", "/live/a", tok, []string{"Rhumb-Client", key + ";try=256"}, http.StatusBadRequest},
		{"a page", "/live/page", "", nil, http.StatusBadGateway},
		{"origin's error", "/live/broken", "", nil, http.StatusInternalServerError},
	} {
		resp := g.get(1, c.path, c.last, c.header...)
		if resp.Body.Close(); resp.StatusCode != c.want {
			t.Errorf("%s: status %d, want %d", c.name, resp.StatusCode, c.want)
		}
	}
	// The answer was lost on its way: the same client may show its token once more.
	for try := 1; try <= 3; try++ {
		g.first(g.get(try%3, "/live/a", bound, "Rhumb-Client", fmt.Sprintf("%s;try=%d", key, try)))
	}
	resp := g.get(0, "/live/a", bound, "Rhumb-Client", key+";try=3")
	if resp.Body.Close(); resp.StatusCode != http.StatusConflict {
		t.Errorf("the same try twice: status %d, want %d", resp.StatusCode, http.StatusConflict)
	}
	g.first(g.get(2, "/live/a", tok)) // nothing above has used it
	if s.leaked.Load() {
		t.Error("a token or a key reached the origin")
	}
}

// TestOriginFailsKeepsToken: a resumption which the origin could not serve does not
// use the token up.
func TestOriginFailsKeepsToken(t *testing.T) {
	s := newStory(t)
	var broken atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			http.Error(rw, "no", http.StatusBadGateway)
			return
		}
		s.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	g := newGroup(t, 2, t.TempDir(), front.URL, true)
	tok := g.first(g.get(0, "/live/a", ""))
	broken.Store(true)
	for range 3 {
		resp := g.get(1, "/live/a", tok)
		if resp.Body.Close(); resp.StatusCode != http.StatusBadGateway {
			t.Fatalf("status %d, want %d", resp.StatusCode, http.StatusBadGateway)
		}
	}
	broken.Store(false)
	// The other keeper hears of the release by the same link as of the next claim.
	g.first(g.get(1, "/live/a", tok))
}

// TestNobodyAnswers: with one of two sites gone there is no majority. A service that
// is not strict goes on and counts it, a strict one refuses.
func TestNobodyAnswers(t *testing.T) {
	for _, strict := range []bool{false, true} {
		s := newStory(t)
		g := newGroup(t, 2, t.TempDir(), s.URL, strict)
		tok := g.first(g.get(0, "/live/a", ""))
		g.sites[0].kill()
		want, result := http.StatusOK, "unsure"
		if strict {
			want, result = http.StatusServiceUnavailable, "no_answer"
		}
		resp := g.get(1, "/live/a", tok)
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("strict %v: status %d, want %d", strict, resp.StatusCode, want)
		}
		if n := tally(t, g.sites[1].m.feeds, result); n != 1 {
			t.Errorf("strict %v: %v requests counted as %s, want 1", strict, n, result)
		}
		if err := g.sites[1].SetTokens(nil); err != nil {
			t.Fatal(err)
		}
		resp = g.get(1, "/live/a", "")
		if resp.Body.Close(); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("without a secret: status %d, want %d", resp.StatusCode, http.StatusServiceUnavailable)
		}
	}
}

// tally is how many requests for streams came to a result.
func tally(t testing.TB, m *feed.Metrics, result string) (n float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(m.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "result" && l.GetValue() == result {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// TestConfigEvents: streams go over TLS that stays here, from an origin.
func TestConfigEvents(t *testing.T) {
	good := Service{Name: "live", Kind: KindContent, Mode: ModeAct, VIPs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:443")},
		Origin: "http://192.0.2.9", Spool: "spool", Cert: "c", Key: "k", Events: Events{Path: "/live/"}}
	for name, c := range map[string]struct {
		change func(*Service)
		ok     bool
	}{
		"good":      {func(*Service) {}, true},
		"in clear":  {func(s *Service) { s.Cert, s.Key = "", "" }, false},
		"secrets":   {func(s *Service) { s.Export = ExportGroup }, false},
		"directory": {func(s *Service) { s.Origin, s.Root = "", "/srv" }, false},
		"no slash":  {func(s *Service) { s.Events.Path = "/live" }, false},
		"relative":  {func(s *Service) { s.Events.Path = "live/" }, false},
		"dots":      {func(s *Service) { s.Events.Path = "/a/../live/" }, false},
	} {
		s := good
		c.change(&s)
		if err := s.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
