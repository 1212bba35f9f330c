package health

import (
	"context"
	"net"
	"sync"
	"time"

	"rhumb/health/detect"
)

// talker sends datagrams to the peers. Beats leave from a goroutine of its own:
// a loop that is busy with a thousand votes must not make this site look dead to
// all others. Safe for concurrent use.
type talker struct {
	conn     net.PacketConn // nil: there is nobody to talk to
	header   detect.Beat    // what is the same in every datagram
	plan     func() int64   // may be nil
	m        *metrics
	started  time.Time
	interval time.Duration

	mu    sync.Mutex // guards what follows, and the order of numbers on the wire
	peers []Peer
	slot  uint32 // of the newest beat
	seq   uint32 // of the newest votes
}

// setPeers replaces who is talked to.
func (t *talker) setPeers(peers []Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers = peers
}

// run sends beats until the context ends. A beat that could not be sent in its
// slot is not sent later: the next one says the same.
func (t *talker) run(ctx context.Context) {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for due := t.started.Add(t.interval); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.send(detect.KindBeat, nil)
		due = t.late(due, time.Now())
	}
}

// late counts how late a beat was on its way, and every slot that passed without
// one, since a ticker says nothing about the ticks it dropped. It returns when
// the next is due.
func (t *talker) late(due, sent time.Time) time.Time {
	for first := true; first || !due.After(sent); first = false {
		t.m.lateness.Observe(max(sent.Sub(due), 0).Seconds())
		due = due.Add(t.interval)
	}
	return due
}

// next numbers a datagram of a kind: a beat and a goodbye with the slot of time in
// which they are sent, others one above the last.
func (t *talker) next(kind detect.Kind, now time.Time) uint32 {
	slot := uint32(now.Sub(t.started) / t.interval)
	switch kind {
	case detect.KindBeat:
		t.slot = max(t.slot+1, slot)
		return t.slot
	case detect.KindLeave:
		return max(t.slot, slot)
	}
	t.seq++
	return t.seq
}

// send sends one datagram to every peer. A lost one is what beats are for, so
// errors are counted and no more.
func (t *talker) send(kind detect.Kind, body []byte) {
	if t.conn == nil {
		return
	}
	b := t.header
	b.Kind, b.Body = kind, body
	if t.plan != nil {
		b.Plan = uint32(t.plan())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b.Seq = t.next(kind, time.Now())
	for i := range t.peers {
		p := &t.peers[i]
		out, err := b.Seal(nil, &p.Keys[0])
		if err == nil {
			_, err = t.conn.WriteTo(out, net.UDPAddrFromAddrPort(p.Addr))
		}
		result := "ok"
		if err != nil {
			result = "failed"
		}
		t.m.beats.WithLabelValues(p.Site, "out", result).Inc()
	}
}

// sendVotes tells the peers votes, in as few datagrams as it takes.
func (t *talker) sendVotes(bodies [][]byte) {
	for _, body := range bodies {
		t.send(detect.KindVotes, body)
	}
}

// datagram is one read of the beat socket.
type datagram struct {
	data []byte
	at   time.Time // arrival, as near as a process can tell
}

// retryRead is how long to wait after a failed read, lest a socket that is broken
// for good make a busy loop.
const retryRead = 100 * time.Millisecond

// receive reads datagrams until the context ends; a deadline in the past on conn
// must wake it then. When the loop is behind, the queue in the kernel fills up
// and drops the newest: their successors say the same.
func receive(ctx context.Context, conn net.PacketConn, to chan<- datagram) {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			select {
			case <-time.After(retryRead):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case to <- datagram{data: append([]byte(nil), buf[:n]...), at: time.Now()}:
		case <-ctx.Done():
		}
	}
}
