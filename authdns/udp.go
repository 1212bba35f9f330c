package authdns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rhumb/authdns/tap"
	"rhumb/authdns/wire"
	"rhumb/placement"
)

// batchSize is how many datagrams a worker takes at once.
const batchSize = 32

// worker answers the datagrams of one socket. It owns the socket, its buffers
// and what it counts; others read the counts.
type worker struct {
	server *Server
	level  placement.Level
	batch  *wire.Batch
	tally  *tally
	// busy is held while a batch is answered. Whoever changes the state takes it,
	// too, so that no worker, however idle, holds on to an earlier one.
	busy   sync.Mutex
	ledger atomic.Pointer[ledger]
	query  request
	bare   []byte    // where a signed reply is made
	sizes  collected // of the fast path's replies in this batch
	guard  guard
	gate   *gate     // nil makes every reply as its query comes
	box    *blackbox // nil keeps nothing
	tap    *tap.Ring // nil tells nobody
	local  netip.AddrPort
}

// request is a query and what it was read from.
type request struct {
	wire.Query
	in []byte
}

// guard is what a worker holds against floods: of a batch, then of a query.
type guard struct {
	jar  *jar
	now  time.Time
	unix uint32 // now, as in cookies
	// full counts batches in a row that came full: the socket does not run dry.
	full int
	// since is when the first of those began.
	since time.Time
	// finding is set where replies are looked for, and none is made.
	finding bool
	// Of the query at hand: whether it could be read, what its cookie is worth, the one
	// for the reply, and the zone that answered on the fast path.
	parsed bool
	cookie [cookieLen]byte
	use    cookieUse
	zone   int
	// many is set where the reply is of one of very many names.
	many bool
	// absent is set where it says that the name does not exist.
	absent bool
}

// pressedAfter is how many full batches in a row mean that queries come faster
// than they are answered: more than a socket's buffer of default size holds.
const pressedAfter = 8

// begin sets what holds for a batch of n.
func (g *guard) begin(j *jar, now time.Time, n int) {
	g.jar, g.now, g.unix = j, now, uint32(now.Unix())
	switch {
	case n < batchSize:
		g.full = 0
		return
	case g.full == 0:
		g.since = now
	}
	g.full++
}

func (g *guard) pressed() bool { return g.full >= pressedAfter }

// worker makes one more, whose counts the metrics find.
func (s *Server) worker(level placement.Level) *worker {
	s.workersMu.Lock()
	defer s.workersMu.Unlock()
	w := &worker{server: s, level: level, tally: s.tallies.worker(), gate: s.newGate(), tap: s.tap.Ring()}
	if w.box = s.blackbox(); w.box != nil {
		w.batch = wire.NewBatchOver(w.box.buffers())
	} else {
		w.batch = wire.NewBatch(batchSize)
	}
	w.ledger.Store(newLedger(s.current.Load()))
	s.udpWorkers = append(s.udpWorkers, w)
	return w
}

// fold brings the counts of the fast path to where they are read.
func (s *Server) fold() {
	s.workersMu.Lock()
	defer s.workersMu.Unlock()
	for _, w := range s.udpWorkers {
		w.ledger.Load().fold(s.metrics, w.tally)
		w.gate.fold(s.metrics, s.signs.metrics)
	}
}

// renew gives all workers the state in force. When it returns, no query is
// answered from an earlier one, and all that was counted under that is in the sums.
func (s *Server) renew() {
	s.workersMu.Lock()
	defer s.workersMu.Unlock()
	st := s.current.Load()
	for _, w := range s.udpWorkers {
		next := newLedger(st) // memory may have to be earned first: nobody waits for that
		w.busy.Lock()
		old := w.renew(next)
		w.busy.Unlock()
		if old != nil {
			old.fold(s.metrics, w.tally)
		}
	}
}

// renew begins a ledger and returns the one before, nil where that was for the same
// state; busy is held.
func (w *worker) renew(next *ledger) *ledger {
	old := w.ledger.Load()
	if old.state == next.state {
		return nil
	}
	w.ledger.Store(next)
	return old
}

// serveUDP is one worker's life. It returns when the context ends or the socket
// is closed; while queries keep coming it would not see the latter.
func (s *Server) serveUDP(ctx context.Context, k socket) error {
	raw, err := k.packet.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	w := s.worker(k.level)
	w.local = specified(k.addr())
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		failed = w.drain(ctx, fd)
		return failed != nil
	})
	if failed == nil {
		failed = err
	}
	if errors.Is(failed, net.ErrClosed) || ctx.Err() != nil {
		return nil
	}
	return failed
}

// drain answers until the socket holds nothing more.
func (w *worker) drain(ctx context.Context, fd uintptr) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := w.batch.Receive(fd)
		if err != nil && transient(err) {
			w.server.metrics.dropped.WithLabelValues("read").Inc()
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		w.answer(n, func() error { return w.send(fd) })
		if err := w.send(fd); err != nil {
			return err
		}
	}
}

// send lets the replies go which are ready.
func (w *worker) send(fd uintptr) error {
	lost, err := w.batch.Send(fd)
	if lost > 0 {
		w.server.metrics.dropped.WithLabelValues("write").Add(float64(lost))
	}
	return err
}

// answer makes the replies of a batch, all from one state. Those which are at hand are
// sent before any is made.
func (w *worker) answer(n int, send func() error) {
	w.busy.Lock()
	defer w.busy.Unlock()
	st, m := w.server.current.Load(), w.server.metrics
	if w.ledger.Load().state != st {
		w.renew(newLedger(st)).fold(m, w.tally)
	}
	began := w.server.now()
	w.guard.begin(w.server.shield.jar.Load(), began, n)
	w.gate.begin(&w.guard)
	quick := 0
	w.guard.finding = w.gate != nil
	for i := range n {
		in, src := w.batch.Query(i), w.batch.Source(i)
		if in == nil || src.Port() == 0 {
			m.dropped.WithLabelValues("malformed").Inc()
			continue
		}
		w.box.begin(i, len(in))
		size, found := w.find(st, i)
		if found {
			quick++
		}
		if size > 0 {
			w.batch.Reply(i, size)
		}
		if w.tap != nil && (size > 0 || found || w.gate == nil) {
			w.tell(i, size)
		}
	}
	w.guard.finding = false
	if quick > 0 { // those of a batch are timed and counted together
		m.size.add(0, &w.sizes)
		m.duration.observeN(0, w.server.now().Sub(began).Seconds()/float64(n), uint64(quick))
	}
	if w.gate != nil && w.gate.n > 0 {
		if w.batch.Replies() > 0 && send() != nil {
			w.gate.n = 0 // the socket is gone
		}
		w.settle(st)
	}
	w.box.end()
}

// find answers a query from what is at hand, and tells whether that was there. Where it
// was not, the reply is made at the end of the batch, or now where there is no gate.
func (w *worker) find(st *state, i int) (size int, found bool) {
	in, out, src := w.batch.Query(i), w.batch.Out(i), w.batch.Source(i)
	w.guard.parsed = false
	if !w.server.shield.quarantine.holds(in, w.guard.now) {
		size = w.quickly(st, in, out, src)
	}
	switch {
	case size > 0:
		w.server.metrics.size.collect(&w.sizes, float64(size))
		w.gate.learn(src.Addr(), w.guard.absent)
		w.gate.answered(w.guard.use, src.Addr())
		if w.server.shield.limiter != nil {
			size = w.bound(st, in, out, size, src)
		}
		return size, true
	case w.gate == nil:
		return w.server.handle(in, out, w.asker(src), w.tally), false
	}
	w.owe(st, i, src.Addr())
	return 0, false
}

// asker is whoever sent a datagram.
func (w *worker) asker(src netip.AddrPort) asker {
	return asker{addr: src, level: w.level, pressed: w.guard.pressed(), funds: w.funds()}
}

// bound is Server.bound for a reply of the fast path.
func (w *worker) bound(st *state, in, out []byte, n int, src netip.AddrPort) int {
	g := &w.guard
	o := outcome{zone: st.quick.zones[g.zone], cookie: g.use, wildcard: g.many}
	return w.server.bound(st, in, out, n, &o, asker{addr: src, level: w.level, jar: g.jar, now: g.unix, funds: w.funds()}, g.now)
}

// transient tells whether a socket goes on after an error: the kernel reports
// what routers say about replies sent earlier, or has no memory just now.
func transient(err error) bool {
	for _, e := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// dropSilent counts packets which are no queries; they get no reply.
const dropSilent = "not_a_query"

// proto is the transport's place in protoLabels.
func proto(from asker) int {
	switch {
	case from.quic:
		return protoDoQ
	case from.https:
		return protoDoH
	case from.tls:
		return protoTLS
	case from.tcp:
		return protoTCP
	}
	return protoUDP
}

// familyLabels are the address families by their numbers (RFC 7871, CoreDNS).
var familyLabels = [2]string{"1", "2"}

func familyLabel(from asker) string {
	if from.addr.Addr().Is4() {
		return familyLabels[0]
	}
	return familyLabels[1]
}
