package resume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Options say how hard is tried. Zero values take the defaults named here.
type Options struct {
	Tries int           // in a row which bring nothing: 8
	Least time.Duration // the second try comes within this time: 100 ms
	Most  time.Duration // the time is doubled up to this: 10 s
	Stall time.Duration // a connection that brings nothing for so long is dead: 30 s
}

// Why something could not be resumed.
var (
	// ErrChanged: the object is not the one that was begun.
	ErrChanged = errors.New("resume: the object has changed")
	// ErrStale: somebody has gone on with this stream at a later epoch.
	ErrStale = errors.New("resume: the stream was resumed elsewhere")
	// ErrExpired: the connection was away for longer than a token lives.
	ErrExpired = errors.New("resume: too late")
	// ErrGivenUp: nothing was reached in all the tries.
	ErrGivenUp = errors.New("resume: given up")
)

// errStalled is what a connection is cut for.
var errStalled = errors.New("nothing came")

const (
	// A connection which brought so much, or lived so long, is worth a try at
	// once; after any other some time is let pass.
	goodBytes = 64 << 10
	goodLife  = time.Second
	// mostAsked is how long a server may have us wait by Retry-After.
	mostAsked = time.Minute
)

func (o Options) withDefaults() Options {
	o.Tries = or(o.Tries, 8)
	o.Least = or(o.Least, 100*time.Millisecond)
	o.Most = or(o.Most, 10*time.Second)
	o.Stall = or(o.Stall, 30*time.Second)
	return o
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// pacer counts tries and spaces them.
type pacer struct {
	Options
	tries, total int       // since something came; in all
	began        time.Time // the present connection
	got          int64     // bytes it brought
}

// moved notes that the connection brought n bytes.
func (p *pacer) moved(n int) {
	p.got += int64(n)
	p.tries = min(p.tries, 1)
	if p.got >= goodBytes || time.Since(p.began) >= goodLife {
		p.tries = 0
	}
}

// pause waits before the next try, at least as long as the server asked for. why
// is what went wrong last.
func (p *pacer) pause(ctx context.Context, asked time.Duration, why error) error {
	if p.tries >= p.Tries {
		return fmt.Errorf("%w after %d tries: %w", ErrGivenUp, p.total, why)
	}
	wait := max(asked, p.backoff(rand.Int64N))
	p.tries, p.total, p.got = p.tries+1, p.total+1, 0
	defer func() { p.began = time.Now() }()
	if wait == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backoff is nothing for the first try, then a random part of a time that doubles:
// the clients of a site that dies do not come all at once a second time.
func (p *pacer) backoff(draw func(int64) int64) time.Duration {
	if p.tries == 0 {
		return 0
	}
	most := p.Least << min(p.tries-1, 30)
	if most <= 0 || most > p.Most {
		most = p.Most
	}
	return time.Duration(draw(int64(most)) + 1)
}

// retryAfter is how long a response asks us to stay away (RFC 9110, 10.2.3), in
// seconds; dates are not read.
func retryAfter(resp *http.Response) time.Duration {
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, mostAsked)
}

// passing tells whether a status may be another one at the next try, or at the
// next site, which may have got the object already.
func passing(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= http.StatusInternalServerError
}

// fresh is a transport without connections: a new one has to be made, and the
// name to be resolved for it. A transport of another kind is told to forget what
// it does not use.
func fresh(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	if t, ok := base.(*http.Transport); ok {
		return t.Clone()
	}
	forget(base)
	return base
}

// forget closes the idle connections of a transport.
func forget(rt http.RoundTripper) {
	if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
