package authdns

import (
	"net/netip"
	"sync"
	"time"
)

// client is whom connections are counted for: an address, of IPv6 the /64, since
// one host may have all of that. The zero value is a proxy, which speaks for many.
type client struct{ addr netip.Addr }

func (c *conn) countedFor() client {
	a := c.from.addr.Addr()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	return client{a}
}

// conns is the table of all connections. When it is full the one which has been
// idle longest makes room.
type conns struct {
	most, perClient int
	idle            time.Duration

	mu     sync.Mutex
	all    map[*conn]struct{}
	of     map[client]int
	closed bool
}

// newConns makes an empty table; one serves all listeners.
func newConns(l *Limits) *conns {
	t := &conns{most: l.Connections, perClient: l.PerClient, idle: l.idle(), all: make(map[*conn]struct{}), of: make(map[client]int)}
	if t.most <= 0 {
		t.most = defaultConnections
	}
	if t.perClient <= 0 {
		t.perClient = defaultPerClient
	}
	return t
}

// idle is the time that a connection may wait.
func (l *Limits) idle() time.Duration {
	if l.Idle <= 0 {
		return defaultIdle
	}
	return l.Idle
}

// add takes a connection in; false means that its client has too many. Who the
// client of a proxied one is will be known after its header.
func (t *conns) add(c *conn, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !c.proxied && !t.count(c) {
		return false
	}
	if len(t.all) >= t.most {
		t.evict()
	}
	c.last = now
	t.all[c] = struct{}{}
	return true
}

// count adds a connection to its client's, if that may have one more; mu is held.
func (t *conns) count(c *conn) bool {
	k := c.countedFor()
	if t.of[k] >= t.perClient {
		return false
	}
	c.client = k
	t.of[k]++
	return true
}

// rename counts a proxied connection for the client that its header names.
func (t *conns) rename(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.all[c]
	return ok && t.count(c)
}

// evict closes the connection that has been idle longest; mu is held. A scan
// costs microseconds, and only a full table pays them.
func (t *conns) evict() {
	var oldest *conn
	for c := range t.all {
		if oldest == nil || c.last.Before(oldest.last) {
			oldest = c
		}
	}
	oldest.end(doqExcessiveLoad)
	t.drop(oldest)
}

// touch notes a query, which keeps the connection from being evicted next.
func (t *conns) touch(c *conn, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.last = now
}

// remove forgets a connection that has ended.
func (t *conns) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

// drop forgets a connection once; mu is held.
func (t *conns) drop(c *conn) {
	if _, ok := t.all[c]; !ok {
		return
	}
	delete(t.all, c)
	if c.client == (client{}) {
		return
	}
	if t.of[c.client]--; t.of[c.client] == 0 {
		delete(t.of, c.client)
	}
}

// How long connections may take to end: those of a process that has a successor, and
// then all of them for what they are at.
const (
	serveOut = 30 * time.Second
	endOut   = time.Second
)

// end waits until all connections have ended, which nobody adds to any more. Where a
// successor has what comes anew, they go on for a time as if nothing had happened.
// Then whoever waits for a query is let go, and whoever answers one finishes.
func (t *conns) end(all *sync.WaitGroup, succeeded bool) {
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	within := func(d time.Duration) bool {
		limit := time.NewTimer(d)
		defer limit.Stop()
		select {
		case <-done:
			return true
		case <-limit.C:
			return false
		}
	}
	if succeeded && within(serveOut) {
		return
	}
	if t.finish(); !within(endOut) {
		t.closeAll()
	}
	<-done
}

// finish lets every connection end where it waits for a query, and takes no more.
func (t *conns) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.all {
		c.finish()
	}
}

// await gives a connection time for the next query; false means that none is awaited.
func (t *conns) await(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.closed && c.raw.SetReadDeadline(time.Now().Add(t.idle)) == nil
}

// closeAll ends every connection and takes no more: Run is over.
func (t *conns) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.all {
		c.end(doqNoError)
	}
}

// unmap makes an IPv4 client of a dual-stack socket an IPv4 client.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
