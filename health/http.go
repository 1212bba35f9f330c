package health

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"time"

	"crypto/tls"

	"rhumb/placement"
)

// What is read of an answer.
const (
	bodyLimit   = 5120
	headerLimit = 64 << 10
)

// ProbeHTTP asks for the check's path, with Host (and SNI) set to the service's
// name. Redirects are answers, not followed; answers before the answer (1xx,
// RFC 9110, 15.2) are passed over. The certificate of an HTTPS target must be one
// that the check trusts.
func ProbeHTTP(ctx context.Context, t Target) Result {
	h := t.Check.HTTP
	host := h.Host
	if host == "" {
		host = t.Host
	}
	watch := startWatch()
	ctx = httptrace.WithClientTrace(ctx, watch.trace())
	verify := newVerifier(&h.Trust, host)
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: headerLimit,
		TLSClientConfig: verify.config(), Protocols: protocols(h),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, t) }}
	defer tr.CloseIdleConnections()
	req, err := httpRequest(ctx, t, host)
	if err != nil {
		return blind("request", err.Error())
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		kind, cause := tlsError(err)
		return watch.stamp(failed(kind, "GET "+req.URL.String()+": "+cause))
	}
	defer resp.Body.Close()
	r := judgeResponse(h, resp)
	if resp.TLS != nil {
		r.Expires = expiry(resp.TLS)
	}
	return slow(h, watch.stamp(r))
}

// slow makes an answer that is right and late a degraded one.
func slow(h *placement.HTTPCheck, r Result) Result {
	if limit := h.Slow.D(); r.OK() && limit > 0 && r.Took > limit {
		r.State, r.Kind = placement.Degraded, "slow"
		r.Cause = fmt.Sprintf("took %d ms, more than %s", r.Took.Milliseconds(), limit)
	}
	return r
}

// protocols are those which the check asks for and no others: a client that also
// takes the older one would not notice that the newer one is broken.
func protocols(h *placement.HTTPCheck) *http.Protocols {
	var p http.Protocols
	switch {
	case h.Version != "2":
		p.SetHTTP1(true)
	case h.TLS:
		p.SetHTTP2(true)
	default:
		p.SetUnencryptedHTTP2(true)
	}
	return &p
}

// httpRequest asks the address, in the name of the service.
func httpRequest(ctx context.Context, t Target, host string) (*http.Request, error) {
	scheme := "http"
	if t.Check.HTTP.TLS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+t.Address.String()+t.Check.HTTP.Path, nil)
	if err != nil {
		return nil, err
	}
	if host != "" {
		req.Host = host
	}
	req.Header.Set("User-Agent", "rhumb-health")
	return req, nil
}

// judgeResponse reads no more of a body than is looked at; a body that breaks off
// fails, whatever the status said before.
func judgeResponse(h *placement.HTTPCheck, resp *http.Response) Result {
	ok := resp.StatusCode >= 200 && resp.StatusCode < 400
	if len(h.Expect) > 0 {
		ok = slices.Contains(h.Expect, resp.StatusCode)
	}
	if !ok {
		return failed("status", fmt.Sprintf("status %d", resp.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, bodyLimit))
	var r Result
	switch {
	case err != nil:
		r = failed(dialKind(err), fmt.Sprintf("status %d, body broke off after %d bytes: %s", resp.StatusCode, len(data), reason(err)))
	case h.Body != "" && !bytes.Contains(data, []byte(h.Body)):
		r = failed("body", fmt.Sprintf("status %d, but %q is not in the first %d bytes", resp.StatusCode, h.Body, len(data)))
	default:
		r = passed(r)
	}
	r.Bytes = len(data)
	return r
}

// stopwatch measures the phases of a look. It is used by one request at a time.
type stopwatch struct {
	start  time.Time
	phases chan Phases // holds one value: the callbacks run on goroutines of the library
}

func startWatch() *stopwatch {
	w := &stopwatch{start: time.Now(), phases: make(chan Phases, 1)}
	w.phases <- Phases{}
	return w
}

func (w *stopwatch) note(set func(*Phases, time.Duration)) {
	p := <-w.phases
	set(&p, time.Since(w.start))
	w.phases <- p
}

// stamp writes the phases into a result, and all of it up to now.
func (w *stopwatch) stamp(r Result) Result {
	w.note(func(p *Phases, d time.Duration) { p.Took = d; r.Phases = *p })
	return r
}

func (w *stopwatch) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			w.note(func(p *Phases, d time.Duration) {
				if p.Connect == 0 {
					p.Connect = d
				}
			})
		},
		TLSHandshakeStart: func() { w.note(func(p *Phases, d time.Duration) { p.Connect = d }) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				w.note(func(p *Phases, d time.Duration) { p.Handshake = d })
			}
		},
		GotFirstResponseByte: func() { w.note(func(p *Phases, d time.Duration) { p.First = d }) },
	}
}
