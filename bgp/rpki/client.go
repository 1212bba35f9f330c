package rpki

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"
)

// The times of a session where the cache names none (RFC 8210, section 6).
const (
	defaultRefresh = time.Hour
	defaultRetry   = time.Minute // of 600 s, so that a restarted cache is soon found again
	// answerLimit is how long a cache may take from a question to the end of its
	// data, each PDU.
	answerLimit = 30 * time.Second
	dialLimit   = 10 * time.Second
)

// The error codes that matter here (RFC 8210, section 12).
const (
	errorNoData             = 2
	errorUnsupportedVersion = 4
)

// session is one connection to a cache, and what it has told so far.
type session struct {
	conn    net.Conn
	r       *bufio.Reader
	version byte
	id      uint16
	serial  uint32
	vrps    map[VRP]struct{}
	whole   bool // vrps are complete as of serial
	refresh time.Duration
	expire  time.Duration
}

// dialCaches keeps a session with the first cache that serves one. The table of a
// cache that is gone stays in force until it is too old.
func (s *Source) dialCaches(ctx context.Context) error {
	version := byte(rtrV1)
	for i := 0; ctx.Err() == nil; i++ {
		cache := s.c.Caches[i%len(s.c.Caches)]
		err := s.talk(ctx, cache, version)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errVersion) && version == rtrV1 {
			version, i = rtrV0, i-1 // the same cache again, in the older version
			continue
		}
		version = rtrV1
		s.trouble(fmt.Errorf("rpki: cache %s: %w", cache, err))
		if (i+1)%len(s.c.Caches) == 0 {
			pause(ctx, min(defaultRetry, s.c.Every))
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// talk holds one session until it breaks; the error says why.
func (s *Source) talk(ctx context.Context, cache string, version byte) error {
	d := net.Dialer{Timeout: dialLimit}
	conn, err := d.DialContext(ctx, "tcp", cache)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &session{conn: conn, r: bufio.NewReaderSize(conn, 1<<16), version: version, refresh: defaultRefresh}
	for {
		if err := c.update(); err != nil {
			return err
		}
		t := NewTable(slices.Collect(maps.Keys(c.vrps)), time.Now())
		t.Expire = c.expire
		s.adopt(t, cache)
		if err := c.idle(); err != nil {
			return err
		}
	}
}

// update asks for what is new, all of it the first time, and reads to the end.
func (c *session) update() error {
	for {
		if err := c.ask(); err != nil {
			return err
		}
		again, err := c.answer()
		if err != nil || !again {
			return err
		}
	}
}

func (c *session) ask() error {
	if err := c.conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	_, err := c.conn.Write(query(c.version, c.id, c.serial, !c.whole))
	return err
}

// answer reads one answer; again is set where the cache can tell no differences and
// everything must be asked for (RFC 8210, section 8.3). What was half told is not
// adopted.
func (c *session) answer() (again bool, err error) {
	vrps, begun := map[VRP]struct{}{}, false
	for {
		p, err := c.read()
		if err != nil {
			return false, err
		}
		switch p.kind {
		case pduCacheReset:
			if !c.whole {
				return false, errors.New("cache reset in answer to a reset query")
			}
			c.whole = false
			return true, nil
		case pduCacheResponse:
			if c.whole && p.session != c.id {
				return false, errors.New("the session has changed") // begins anew
			}
			if c.id, begun = p.session, true; c.whole {
				vrps = maps.Clone(c.vrps)
			}
		case pduIPv4Prefix, pduIPv6Prefix:
			if !begun {
				return false, errors.New("prefix before the cache response")
			}
			if err := change(vrps, p); err != nil {
				return false, err
			}
		case pduEndOfData:
			if !begun {
				return false, errors.New("end of data before the cache response")
			}
			c.finish(vrps, p)
			return false, nil
		}
	}
}

// read reads a PDU that may stand in an answer, and turns reports into errors.
func (c *session) read() (pdu, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return pdu{}, err
	}
	p, err := readPDU(c.r)
	switch {
	case err != nil:
		return p, err
	case p.kind == pduErrorReport && p.session == errorUnsupportedVersion:
		return p, fmt.Errorf("%w: %s", errVersion, p.text)
	case p.kind == pduErrorReport && p.session == errorNoData:
		return p, errors.New("the cache has no data yet")
	case p.kind == pduErrorReport:
		return p, fmt.Errorf("error report %d: %q", p.session, p.text)
	case p.version != c.version:
		return p, fmt.Errorf("%w: %d", errVersion, p.version)
	}
	return p, nil
}

// change applies one prefix. What is added twice or taken back without being there
// shows that the two sides are no more of one mind (RFC 8210, section 5.6).
func change(vrps map[VRP]struct{}, p pdu) error {
	_, there := vrps[p.vrp]
	switch {
	case p.announce && there:
		return fmt.Errorf("%s is announced twice", p.vrp)
	case !p.announce && !there:
		return fmt.Errorf("%s is taken back and was never there", p.vrp)
	case p.announce && len(vrps) >= maxVRPs:
		return errTooMany
	case p.announce:
		vrps[p.vrp] = struct{}{}
	default:
		delete(vrps, p.vrp)
	}
	return nil
}

// finish makes the answer what is known; the cache's times hold within reason.
func (c *session) finish(vrps map[VRP]struct{}, p pdu) {
	c.vrps, c.serial, c.whole = vrps, p.serial, true
	if p.refresh > 0 {
		c.refresh = min(max(time.Duration(p.refresh)*time.Second, time.Second), 24*time.Hour)
	}
	c.expire = time.Duration(p.expire) * time.Second
}

// idle waits until there is something to ask for: the cache says so, or the refresh
// time is over. Both are reasons to ask; a notice of another session ends this one.
func (c *session) idle() error {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.refresh)); err != nil {
		return err
	}
	if _, err := c.r.Peek(1); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return nil
		}
		return err
	}
	p, err := c.read()
	if err != nil {
		return err
	}
	if p.kind != pduSerialNotify || p.session != c.id {
		return fmt.Errorf("PDU of type %d, session %d, where a notice should be", p.kind, p.session)
	}
	return nil
}
