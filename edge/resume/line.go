package resume

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// line is a session with a service, over one connection after another.
type line struct {
	kind   kind
	ctx    context.Context
	stop   context.CancelFunc
	client *http.Client // of the caller; nil: http.DefaultClient
	url    string
	pace   pacer
	credential

	now  *connection
	wish time.Duration // of the server: to be left alone before the next try
	why  error         // the last connection ended
	over error
}

// credential is what the next site is shown.
type credential struct {
	key  string // by which a site knows that it is still us
	last string // token behind the last event that was read
	// shown counts how often last was shown: the answer may be lost on its way,
	// and a token is good once.
	shown int
}

// stands notes where the session stands.
func (c *credential) stands(last string) {
	if c.last != last {
		c.last, c.shown = last, 0
	}
}

// kind is how a session is asked for.
type kind interface {
	// transport is one without connections.
	transport(base http.RoundTripper) http.RoundTripper
	// dress adds the kind's fields to a request.
	dress(req *http.Request, last string)
	// fits tells why a response is not what was asked for.
	fits(resp *http.Response) error
}

func newLine(ctx context.Context, client *http.Client, address, scheme string, o Options, k kind) (l line, err error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return l, fmt.Errorf("resume: %w", err)
	case u.Scheme != scheme || u.Host == "":
		return l, fmt.Errorf("resume: %s://%s: a token goes over %s alone", u.Scheme, u.Host, scheme)
	}
	u.Scheme = "https"
	ctx, stop := context.WithCancel(ctx)
	return line{kind: k, ctx: ctx, stop: stop, client: client, url: u.String(), pace: pacer{Options: o.withDefaults()},
		credential: credential{key: rand.Text()}}, nil
}

// lost ends a connection.
func (l *line) lost(why error) {
	l.why = why
	l.now.Close()
	l.now = nil
}

// connect tries until there is a connection, or reason to give up.
func (l *line) connect() error {
	for asked := l.wish; ; {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		// The first connection of all is nobody's failure.
		if l.pace.total > 0 || l.why != nil {
			if err := l.pace.pause(l.ctx, asked, l.why); err != nil {
				return err
			}
		} else {
			l.pace.total, l.pace.began = 1, time.Now()
		}
		resp, err := l.ask()
		asked = l.wish
		if err != nil {
			l.why = err
			continue
		}
		if err = l.fits(resp); err == nil {
			return nil
		}
		l.lost(err)
		if !passing(resp.StatusCode) {
			return err
		}
		asked = max(asked, retryAfter(resp))
	}
}

// reader reads the connection with its stall time.
func (l *line) reader() io.Reader { return resuming{l.now, l.pace.Stall} }

type resuming struct {
	*connection
	stall time.Duration
}

func (r resuming) Read(p []byte) (int, error) { return r.read(p, r.stall) }

// ask asks for what comes behind the last event.
func (l *line) ask() (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(l.ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		cancel(err)
		return nil, err
	}
	l.shown++
	req.Header.Set("Rhumb-Client", l.key+";try="+strconv.Itoa(l.shown))
	l.kind.dress(req, l.last)
	c := http.Client{CheckRedirect: sameHost}
	if l.client != nil {
		c.Transport, c.Jar = l.client.Transport, l.client.Jar
	}
	c.Transport = l.kind.transport(c.Transport)
	late := time.AfterFunc(l.pace.Stall, func() { cancel(errStalled) })
	defer late.Stop()
	resp, err := c.Do(req)
	if err != nil {
		cancel(err)
		return nil, err
	}
	l.now = &connection{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, rt: c.Transport}
	return resp, nil
}

// sameHost keeps the token from going anywhere else.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) > 10 || req.URL.Scheme != "https" || req.URL.Host != via[0].URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// fits tells whether a response is a session, and ours.
func (l *line) fits(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusConflict:
		return ErrStale
	case http.StatusGone:
		return ErrExpired
	}
	return l.kind.fits(resp)
}
