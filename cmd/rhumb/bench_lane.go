package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// lane is one socket of a bench: what it asks, when, and what came back. It is for
// one goroutine, but for the counters of its tally.
type lane struct {
	queries *benchQueries
	pace    pace
	open    inFlight
	tally   benchTally
	rand    *rand.Rand
	began   time.Time
	// patience is how long a reply is waited for.
	patience time.Duration
}

// benchTally is what a lane counts; the first two may be read at any time.
type benchTally struct {
	sent, answered atomic.Int64
	lost, strays   int64 // without a reply in time; replies to no open query
	rcodes         [16]int64
	latency        latencies
}

// now counts from the start of the bench.
func (l *lane) now() time.Duration { return time.Since(l.began) }

// pace says when to ask.
type pace struct {
	// outstanding bounds the open queries of a closed loop; every is the distance
	// of queries of an open one, 0 in a closed loop.
	outstanding int
	every       time.Duration
	first       time.Duration // when the first query of an open loop is due
	end         time.Duration // no query is due from then on
	asked       int64
}

// maxOpen bounds what one socket can tell apart by ID, with room to find a free one.
const maxOpen = 1 << 15

// ready is how many queries are due.
func (p *pace) ready(now time.Duration, open int) int {
	if p.every == 0 {
		if now >= p.end {
			return 0
		}
		return max(p.outstanding-open, 0)
	}
	if now = min(now, p.end-1); now < p.first {
		return 0
	}
	due := int64((now-p.first)/p.every) + 1
	return int(min(due-p.asked, int64(maxOpen-open)))
}

// next takes one query and tells when it was due. In an open loop that may be
// past: a server that stalls is charged for the queries which it kept from
// being sent.
func (p *pace) next(now time.Duration) time.Duration {
	due := now
	if p.every > 0 {
		due = p.due()
	}
	p.asked++
	return due
}

// due is when an open loop asks next.
func (p *pace) due() time.Duration { return p.first + time.Duration(p.asked)*p.every }

// over tells that nothing more will be due.
func (p *pace) over(now time.Duration) bool {
	return now >= p.end && (p.every == 0 || p.due() >= p.end)
}

// wait is how long nothing will be due, unless a reply comes.
func (p *pace) wait(now time.Duration) time.Duration {
	if p.every == 0 || p.over(now) {
		return 50 * time.Millisecond
	}
	return min(max(p.due()-now, 0), 50*time.Millisecond)
}

// inFlight are the open queries by ID. The zero value is ready.
type inFlight struct {
	due   [1 << 16]time.Duration // 1 and more; 0 where none is open
	queue []sentQuery            // in the order sent, closed ones among them
	next  uint16
	count int
}

type sentQuery struct {
	id       uint16
	due, now time.Duration
}

// add opens a query and returns its ID.
func (f *inFlight) add(due, now time.Duration) uint16 {
	for f.due[f.next] != 0 {
		f.next++
	}
	id := f.next
	f.next++
	due++ // 0 is none
	f.due[id] = due
	f.queue = append(f.queue, sentQuery{id, due, now})
	f.count++
	return id
}

// take closes a query and tells when it was due.
func (f *inFlight) take(id uint16) (due time.Duration, ok bool) {
	due = f.due[id]
	if due == 0 {
		return 0, false
	}
	f.due[id] = 0
	f.count--
	return due - 1, true
}

// expire closes the queries sent before a time and returns how many there were.
func (f *inFlight) expire(before time.Duration) (lost int64) {
	n := 0
	for n < len(f.queue) && (f.queue[n].now < before || f.due[f.queue[n].id] != f.queue[n].due) {
		if q := f.queue[n]; f.due[q.id] == q.due {
			f.take(q.id)
			lost++
		}
		n++
	}
	f.queue = f.queue[n:]
	return lost
}

// drop closes all queries and returns how many there were.
func (f *inFlight) drop() int64 {
	n := f.count
	clear(f.due[:])
	f.queue, f.count = nil, 0
	return int64(n)
}

// ask writes the next query into out.
func (l *lane) ask(out []byte, now time.Duration) int {
	id := l.open.add(l.pace.next(now), now)
	l.tally.sent.Add(1)
	return l.queries.write(out, id, l.rand)
}

// heard takes in a message.
func (l *lane) heard(in []byte, now time.Duration) {
	if len(in) < 12 || in[2]&0x80 == 0 {
		l.tally.strays++
		return
	}
	due, ok := l.open.take(binary.BigEndian.Uint16(in))
	if !ok {
		l.tally.strays++
		return
	}
	l.tally.answered.Add(1)
	l.tally.rcodes[in[3]&0xf]++
	l.tally.latency.add(now - due)
}

// tidy counts what is lost, and tells whether the lane has done its work.
func (l *lane) tidy(ctx context.Context, now time.Duration) (done bool) {
	l.tally.lost += l.open.expire(now - l.patience)
	return ctx.Err() != nil || l.pace.over(now) && l.open.count == 0
}

// errConnClosed tells that the server has closed a connection, as it may at any
// time (RFC 7766 section 6.2.3).
var errConnClosed = errors.New("the server closed the connection")

// run asks over one connection after another. What is open when the server closes one is
// lost; one that it closes without an answer is an error.
func (l *lane) run(ctx context.Context, connection func(context.Context) error) error {
	for {
		before := l.tally.answered.Load()
		err := connection(ctx)
		if !errors.Is(err, errConnClosed) || l.tally.answered.Load() == before {
			return err
		}
		l.tally.lost += l.open.drop()
	}
}

// write hands queries to send, each behind its length as over TCP, until all is asked and
// answered or lost, or the connection has ended.
func (l *lane) write(ctx context.Context, mu *sync.Mutex, heard, ended <-chan struct{}, send func(out []byte) error) error {
	out := make([]byte, 0, benchBatch*2048)
	for {
		mu.Lock()
		now := l.now()
		out = out[:0]
		for range min(l.pace.ready(now, l.open.count), benchBatch) {
			at := len(out)
			out = out[:at+2+l.ask(out[at+2:at+2048], now)]
			binary.BigEndian.PutUint16(out[at:], uint16(len(out)-at-2))
		}
		done, wait := l.tidy(ctx, now), l.pace.wait(now)
		mu.Unlock()
		if done {
			return nil
		}
		if len(out) > 0 {
			if err := send(out); err != nil {
				return errors.Join(errConnClosed, err)
			}
			continue
		}
		select {
		case <-heard:
		case <-time.After(wait):
		case <-ended:
			return errConnClosed
		}
	}
}

// wake lets the writer look again.
func wake(heard chan<- struct{}) {
	select {
	case heard <- struct{}{}:
	default:
	}
}
