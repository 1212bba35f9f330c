package feed

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"rhumb/edge/token"
)

// Config is what New needs.
type Config struct {
	Service string // its name, as it is counted
	ID      uint32 // its name in tokens
	Origin  string // base URL
	Path    string // what begins so is a stream; see IsPath
	// Strict refuses to go on with a session when too few sites answer that know
	// its epoch. Else it goes on, since whoever knows of a later one would have said so.
	Strict bool
	Write  time.Duration // in which a client has to take something; four beats at least

	Keepers *Keepers
	Metrics *Metrics
	Leaving func() bool   // this site gives its sessions away; it must not block
	Met     func(ok bool) // is told how each request to the origin ended; nil: nobody is
	Log     *slog.Logger
}

// Server serves the event streams of a service, and its WebSockets. They come from the
// origin as they are, but for their ids: clients are given tokens, by which any site goes
// on. Safe for concurrent use.
type Server struct {
	cfg  Config
	base *url.URL
	rt   *http.Transport
}

// New makes a Server. Nothing is asked of the origin before the first request.
func New(c Config) (*Server, error) {
	u, err := url.Parse(c.Origin)
	if err != nil {
		return nil, fmt.Errorf("feed: origin %q: %w", c.Origin, err)
	}
	if c.Met == nil {
		c.Met = func(bool) {}
	}
	return &Server{cfg: c, base: u,
		rt: &http.Transport{DisableCompression: true, ResponseHeaderTimeout: headerLimit, MaxIdleConnsPerHost: 16, Proxy: nil}}, nil
}

// Run closes the connections to the origin which nobody uses, when its context ends. It
// returns nil.
func (f *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	f.rt.CloseIdleConnections()
	return nil
}

// IsPath reports whether streams may be what begins with p: it begins and ends with a
// slash, and says nothing in a roundabout way.
func IsPath(p string) bool {
	return strings.HasPrefix(p, "/") && strings.HasSuffix(p, "/") && clean(p) == p
}

// clean is a path as it is compared and forwarded: never out of what it begins with.
func clean(p string) string {
	c := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}

// Owns tells whether a path is a stream. A nil Server has none.
func (f *Server) Owns(p string) bool { return f != nil && strings.HasPrefix(clean(p), f.cfg.Path) }

// What a request for a stream came to, as it is counted.
const (
	asNew     = "new"
	asResumed = "resumed"
	asUnsure  = "unsure"    // resumed without a majority
	asAlone   = "no_answer" // refused without one: Strict
	asStale   = "stale"
	asNoKeys  = "no_secret"
	asBad     = "bad_request"
)

// denial is a request for a stream that is not served.
type denial struct {
	status int
	result string
}

// denialOf says what a client is told of its token, and what is counted.
func denialOf(err error) denial {
	for _, r := range []struct {
		err error
		denial
	}{
		{token.ErrExpired, denial{http.StatusGone, "expired"}}, {token.ErrMalformed, denial{http.StatusBadRequest, "malformed"}},
		{token.ErrKey, denial{http.StatusForbidden, "key"}}, {token.ErrForged, denial{http.StatusForbidden, "forged"}},
		{token.ErrService, denial{http.StatusForbidden, "service"}}, {token.ErrObject, denial{http.StatusForbidden, "object"}},
		{token.ErrClient, denial{http.StatusForbidden, "client"}},
	} {
		if errors.Is(err, r.err) {
			return r.denial
		}
	}
	return denial{http.StatusForbidden, "forged"}
}

// ServeHTTP serves one connection of a stream. What is wrong with a token is
// answered and counted; the token itself is a secret and goes into no log.
func (f *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if f.cfg.Leaving() && !isSocket(r) {
		rw.Header().Set("Connection", "close") // the next one is to be made elsewhere
	}
	s, no := f.admit(r)
	if no != (denial{}) {
		f.cfg.Metrics.requests.WithLabelValues(f.cfg.Service, no.result).Inc()
		rw.Header().Set("Cache-Control", "no-store")
		switch no.status {
		case http.StatusMethodNotAllowed:
			rw.Header().Set("Allow", http.MethodGet)
		case http.StatusServiceUnavailable:
			rw.Header().Set("Retry-After", "1")
		}
		http.Error(rw, http.StatusText(no.status), no.status)
		return
	}
	defer s.stop()
	f.cfg.Metrics.requests.WithLabelValues(f.cfg.Service, s.result).Inc()
	f.proxy(s).ServeHTTP(&patient{ResponseWriter: rw, ctl: http.NewResponseController(rw), limit: max(f.cfg.Write, 4*beatEvery)}, r)
}

// admit makes a stream of a request, or says why not.
func (f *Server) admit(r *http.Request) (*stream, denial) {
	key, try, ok := clientOf(r.Header.Get("Rhumb-Client"))
	keys := f.cfg.Keepers.keys.Load()
	switch {
	case r.Method != http.MethodGet:
		return nil, denial{http.StatusMethodNotAllowed, asBad}
	case !ok:
		return nil, denial{http.StatusBadRequest, asBad}
	case keys == nil:
		return nil, denial{http.StatusServiceUnavailable, asNoKeys}
	}
	now := time.Now()
	object, last, socket := clean(r.URL.Path)+"?"+r.URL.RawQuery, r.Header.Get("Last-Event-ID"), isSocket(r)
	if socket {
		if last, ok = shownIn(r); !ok {
			return nil, denial{http.StatusBadRequest, asBad}
		}
		object = "websocket " + object // its positions are others
	}
	want := token.Expect{Service: f.cfg.ID, Object: sha256.Sum256([]byte(object)), Client: token.ClientOf(key)}
	if last == "" {
		return f.newStream(token.Claims{Session: token.NewSession(), Epoch: 1, Service: want.Service, Object: want.Object, Client: want.Client,
			Began: now.Truncate(time.Second)}, socket, asNew, now), denial{}
	}
	c, err := keys.Open(last, now, want)
	if err != nil {
		return nil, denialOf(err)
	}
	return f.succeed(r.Context(), c, try, socket, now)
}

// succeed makes the stream that comes after a token, under the next epoch.
func (f *Server) succeed(ctx context.Context, c token.Claims, try uint64, socket bool, now time.Time) (*stream, denial) {
	q := claimOf(c, try)
	verdict := f.cfg.Keepers.ask(ctx, q)
	f.cfg.Metrics.asked.Observe(time.Since(now).Seconds())
	result := asResumed
	switch {
	case verdict == token.Over:
		f.cfg.Keepers.release(q)
		return nil, denial{http.StatusConflict, asStale}
	case verdict == token.Open && f.cfg.Strict:
		f.cfg.Keepers.release(q)
		return nil, denial{http.StatusServiceUnavailable, asAlone}
	case verdict == token.Open:
		result = asUnsure
	}
	c.Epoch = q.Epoch
	s := f.newStream(c, socket, result, now)
	s.claim = q
	return s, denial{}
}

// mostTries bounds how often a token is shown.
const mostTries = 255

// clientOf reads what a client says of itself: a key of its own, which binds its
// tokens to it, and how often it has shown the present one. Browsers say nothing.
func clientOf(field string) (key string, try uint64, ok bool) {
	if field == "" {
		return "", 1, true
	}
	key, n, found := strings.Cut(field, ";try=")
	try, err := strconv.ParseUint(n, 10, 16)
	return key, try, found && err == nil && try >= 1 && try <= mostTries && len(key) >= 16 && len(key) <= 128
}

// errNotStream: the origin's 200 or 101 is something else.
var errNotStream = errors.New("origin's response is no stream with positions")

// proxy forwards one request to the origin and its stream to the client.
func (f *Server) proxy(s *stream) http.Handler {
	return &httputil.ReverseProxy{
		Transport: f.rt, FlushInterval: -1, ErrorLog: slog.NewLogLogger(f.cfg.Log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = f.base.Scheme, f.base.Host, ""
			p.Out.URL.Path, p.Out.URL.RawPath = strings.TrimSuffix(f.base.Path, "/")+clean(p.In.URL.Path), ""
			for _, name := range []string{"Rhumb-Client", "Last-Event-ID", "Accept-Encoding", "Range", "If-Range", "Sec-Websocket-Extensions"} {
				p.Out.Header.Del(name)
			}
			if s.socket {
				p.Out.Header.Set("Sec-Websocket-Protocol", token.SubProtocol)
			} else {
				p.Out.Header.Del("Connection")
				p.Out.Header.Del("Upgrade")
			}
			if s.claims.Position != "" {
				p.Out.Header.Set("Last-Event-ID", s.claims.Position)
			}
			p.SetXForwarded()
		},
		ModifyResponse: func(resp *http.Response) error { return f.begin(s, resp) },
		ErrorHandler: func(rw http.ResponseWriter, r *http.Request, err error) {
			s.giveBack()
			if r.Context().Err() == nil {
				f.cfg.Met(false)
				f.cfg.Log.Warn("origin", "name", clean(r.URL.Path), "err", err)
			}
			rw.Header().Set("Cache-Control", "no-store")
			http.Error(rw, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
		},
	}
}

// begin makes the stream of the origin's response.
func (f *Server) begin(s *stream, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols:
		origin, ok := resp.Body.(io.ReadWriteCloser)
		if !ok || !s.socket || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") ||
			resp.Header.Get("Sec-Websocket-Protocol") != token.SubProtocol || resp.Header.Get("Sec-Websocket-Extensions") != "" {
			return errNotStream
		}
		resp.Body = &socket{ReadCloser: s.open(origin), Writer: origin}
	case http.StatusOK:
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if s.socket || kind != "text/event-stream" || resp.Header.Get("Content-Encoding") != "" {
			return errNotStream
		}
		resp.Header.Set("Cache-Control", "no-store") // each copy holds a secret of its own
		resp.Header.Del("Content-Length")
		resp.Header.Del("ETag")
		resp.ContentLength = -1
		resp.Body = s.open(resp.Body)
	default:
		s.giveBack()
		f.cfg.Met(resp.StatusCode < http.StatusInternalServerError)
		return nil
	}
	f.cfg.Met(true)
	return nil
}
