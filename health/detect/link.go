package detect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is a node of another site: it is heard, hears us, and is asked about others.
type Peer struct {
	Name string // for counts
	Node uint16 // unique in the fleet
	Addr netip.AddrPort
	// Keys of the pair of sites, the first is used to send; two at a roll-over.
	Keys [][32]byte
}

// LinkConfig is what a Link needs.
type LinkConfig struct {
	Node uint16
	// Incarnation rises at each start.
	Incarnation uint32
	Times       Config
	// Conn is the socket; the caller closes it after Run.
	Conn net.PacketConn
	// Plan returns the plan revision in force; may be nil. Late gets how late each
	// beat was sent; may be nil. Both are called from the goroutine of Run.
	Plan func() int64
	Late func(time.Duration)
}

// Link beats, listens and judges: one goroutine on a thread of its own owns socket
// and detector, so that nothing else of the process makes this site look dead to
// others, or others to it. No packet allocates. Set, SendVotes, Take and Look may be
// called from other goroutines.
type Link struct {
	cfg     LinkConfig
	sock    socket
	d       *Detector
	started time.Time
	now     time.Duration // since started, of this turn of the loop

	peers  []*peer
	byNode map[uint16]*peer
	order  []uint16 // node ids of everybody, ourselves too, rising
	check  uint16   // checksum of order

	slot   uint32 // of the newest beat
	counts [kinds]uint32
	turn   int // where the next vector begins
	asked  int // which peers were asked last
	in     []packet
	out    []packet
	queued int // packets in out
	body   []byte

	mu     sync.Mutex // guards what follows
	mail   []wish
	events []Event
	bell   chan struct{}

	looks  atomic.Pointer[map[uint16]*peer]
	strays [results]atomic.Uint64 // of nobody who is known
}

// peer is what the loop keeps of one peer.
type peer struct {
	Peer
	to    *address
	seal  *sealer
	open  []*sealer
	marks Marks
	asked time.Duration // when others were asked about it last

	heard     atomic.Int64 // nanoseconds since started; 0: never
	suspicion atomic.Uint64
	in, out   [results]atomic.Uint64
	octets    atomic.Uint64 // sent
}

// wish is what another goroutine wants the loop to do.
type wish struct {
	peers []Peer
	set   bool
	votes [][]byte
}

// Event is what the loop has to tell.
type Event struct {
	Node   uint16
	Change *Change // of Node's state
	Votes  []byte  // said by Node
	Hold   *bool   // this observer begins or ends to doubt itself
}

// Result says what became of a datagram.
type Result uint8

// The results. Refused datagrams are of nobody who is known, or not in his hand;
// of another version are those of a node that is newer or older than this one.
const (
	OK Result = iota
	Old
	Refused
	OtherVersion
	BadVector
	BadVotes
	Failed

	results Result = 7
)

func (r Result) String() string {
	return [...]string{"ok", "old", "refused", "other_version", "bad_vector", "bad_votes", "failed"}[r]
}

// NewLink returns a link without peers.
func NewLink(cfg LinkConfig) (*Link, error) {
	l := &Link{cfg: cfg, d: New(cfg.Times), byNode: make(map[uint16]*peer), bell: make(chan struct{}, 1),
		in: make([]packet, batch), out: make([]packet, batch), body: make([]byte, 0, MaxDatagram)}
	l.looks.Store(&l.byNode)
	if cfg.Conn == nil {
		return l, nil
	}
	var err error
	l.sock, err = newSocket(cfg.Conn)
	return l, err
}

// Set replaces the peers; those that stay keep what was heard of them.
func (l *Link) Set(peers []Peer) { l.post(wish{peers: slices.Clone(peers), set: true}) }

// SendVotes tells all peers votes, a datagram a body.
func (l *Link) SendVotes(bodies [][]byte) {
	if len(bodies) > 0 {
		l.post(wish{votes: bodies})
	}
}

// post hands a wish to the loop and wakes it up.
func (l *Link) post(w wish) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mail = append(l.mail, w)
	if l.sock != nil {
		l.sock.setReadDeadline(time.Unix(1, 0))
	}
}

// Bell rings when there are events to take.
func (l *Link) Bell() <-chan struct{} { return l.bell }

// Take returns the events since the last call.
func (l *Link) Take() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.events
	l.events = nil
	return out
}

// maxEvents bounds what waits for a reader that does not come; votes are repeated.
const maxEvents = 1 << 14

func (l *Link) tell(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Votes != nil && len(l.events) >= maxEvents {
		return
	}
	l.events = append(l.events, e)
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// Run works until the context ends, and says goodbye to all peers then.
func (l *Link) Run(ctx context.Context) error {
	if l.sock == nil {
		<-ctx.Done()
		return nil
	}
	l.started = time.Now()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, func() { l.post(wish{}) })
	defer stop()
	due := l.cfg.Times.Interval
	for held := false; ctx.Err() == nil; {
		l.takeMail()
		if l.now >= due {
			due = l.beat(due)
		}
		l.d.Due(l.now)
		held = l.publish(held)
		l.ask()
		if err := l.listen(min(due, max(l.d.Next(), l.now+minWait))); err != nil {
			return err
		}
	}
	l.takeMail()
	l.send(KindLeave, l.leaveSlot(), nil)
	l.flush()
	return nil
}

const (
	// minWait is the least time between two judgements: a thousand subjects must not
	// wake the loop a thousand times an interval.
	minWait = 2 * time.Millisecond
	// lateWake is how late the loop may wake up before it listens again, and judges
	// then: what lies in the socket was in time.
	lateWake = 10 * time.Millisecond
	// idleWait bounds a wait without peers.
	idleWait = time.Second
)

func (l *Link) clock() time.Duration { return time.Since(l.started) }

// listen reads until a time, or until something was read. A loop that woke up late
// reads all that waits before it goes on; when it stood still for more than an
// interval, the deadlines in that pause do not count.
func (l *Link) listen(until time.Duration) error {
	until = min(until, l.now+idleWait)
	if l.deadline(until) {
		n, err := l.read()
		before := l.now
		l.now = l.clock()
		l.take(n)
		if err != nil && !timedOut(err) {
			return l.pause(err)
		}
		if l.now-until > lateWake {
			l.drain()
		}
		if pause := l.now - max(before, until); pause > l.cfg.Times.Interval {
			l.d.Skip(pause, l.now)
		}
	}
	l.now = max(l.now, l.clock())
	return nil
}

// deadline sets how long to wait; false when there is mail.
func (l *Link) deadline(until time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mail) > 0 {
		return false
	}
	l.sock.setReadDeadline(l.started.Add(until))
	return true
}

func (l *Link) read() (int, error) {
	n, err := l.sock.read(l.in)
	return n, err
}

// pause waits a little after a failed read, lest a socket that is broken for good
// make a busy loop. A closed one will not come back.
func (l *Link) pause(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("detect: %w", err)
	}
	l.strays[Failed].Add(1)
	time.Sleep(20 * time.Millisecond)
	return nil
}

// drain takes what waits in the socket, bounded by what a socket holds.
func (l *Link) drain() {
	for range 256 {
		l.sock.setReadDeadline(time.Now().Add(time.Millisecond))
		n, err := l.read()
		l.now = l.clock()
		if err != nil || n == 0 {
			return
		}
		l.take(n)
	}
}

// takeMail does what others have asked for.
func (l *Link) takeMail() {
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, w := range mail {
		if w.set {
			l.setPeers(w.peers)
		}
		for _, body := range w.votes {
			l.counts[KindVotes]++
			l.send(KindVotes, l.counts[KindVotes], func([]byte, *peer) []byte { return body })
		}
	}
	l.flush()
}

// setPeers replaces the peers. One without a key could neither be believed nor
// spoken to; it is left out.
func (l *Link) setPeers(peers []Peer) {
	before := l.byNode
	l.byNode, l.peers, l.order = make(map[uint16]*peer, len(peers)), nil, []uint16{l.cfg.Node}
	ids := make([]uint32, 0, len(peers))
	for _, p := range peers {
		if len(p.Keys) == 0 || l.byNode[p.Node] != nil || p.Node == l.cfg.Node {
			continue
		}
		k := before[p.Node]
		if k == nil {
			k = &peer{}
		}
		k.Peer, k.to, k.seal, k.open = p, newAddress(p.Addr), newSealer(p.Keys[0]), nil
		for _, key := range p.Keys {
			k.open = append(k.open, newSealer(key))
		}
		l.byNode[p.Node], l.peers = k, append(l.peers, k)
		l.order, ids = append(l.order, p.Node), append(ids, uint32(p.Node))
	}
	slices.Sort(l.order)
	l.check = checksum(l.order)
	l.d.Watch(ids)
	looks := l.byNode
	l.looks.Store(&looks)
}

// beat sends the beat of the slot that is due and returns when the next is. A slot
// that passed without one is counted as late, too: the next beat says the same.
func (l *Link) beat(due time.Duration) time.Duration {
	interval := l.cfg.Times.Interval
	slot := uint32(l.now / interval)
	l.slot = max(l.slot+1, slot)
	if l.slot%vectorEvery == 0 {
		l.send(KindVector, l.slot, l.vector)
		l.turn++
	} else {
		l.send(KindBeat, l.slot, nil)
	}
	l.flush()
	for _, p := range l.peers {
		p.suspicion.Store(math.Float64bits(l.d.Suspicion(uint32(p.Node), l.now)))
	}
	for sent := l.clock(); due <= sent; due += interval {
		if l.cfg.Late != nil {
			l.cfg.Late(sent - due)
		}
	}
	return due
}

func (l *Link) leaveSlot() uint32 { return max(l.slot, uint32(l.clock()/l.cfg.Times.Interval)) }

// send queues a datagram to every peer; body appends what is special to one, or nil.
func (l *Link) send(kind Kind, seq uint32, body func([]byte, *peer) []byte) {
	for _, p := range l.peers {
		l.queue(p, kind, seq, body)
	}
}

func (l *Link) queue(p *peer, kind Kind, seq uint32, body func([]byte, *peer) []byte) {
	b := Beat{Kind: kind, Node: l.cfg.Node, Incarnation: l.cfg.Incarnation, Seq: seq, Interval: l.cfg.Times.Interval}
	if l.cfg.Plan != nil {
		b.Plan = uint32(l.cfg.Plan())
	}
	if body != nil {
		b.Body = body(l.body[:0], p)
	}
	if headerSize+len(b.Body)+tagSize > MaxDatagram {
		p.out[Failed].Add(1)
		return
	}
	if l.queued == len(l.out) {
		l.flush()
	}
	o := &l.out[l.queued]
	o.n, o.to = len(p.seal.seal(&b, o.buf[:0])), p.to
	l.queued++
	p.out[OK].Add(1)
	p.octets.Add(uint64(o.n))
}

// flush sends what is queued. A lost datagram is what beats are for, so errors are
// counted and no more.
func (l *Link) flush() {
	for out := l.out[:l.queued]; len(out) > 0; {
		n, err := l.sock.write(out)
		if err != nil && n < len(out) {
			l.failed(out[n].to)
			n++
		}
		out = out[n:]
	}
	l.queued = 0
}

func (l *Link) failed(to *address) {
	for _, p := range l.peers {
		if p.to == to {
			p.out[Failed].Add(1)
			p.out[OK].Add(^uint64(0))
		}
	}
}

// vector appends what this node has heard of others, for a receiver.
func (l *Link) vector(buf []byte, to *peer) []byte {
	n := len(l.order) - 2
	if n <= 0 {
		return buf
	}
	first := 0
	if n > maxEntries {
		first = l.turn * maxEntries % n
	}
	buf = binary.BigEndian.AppendUint16(buf, l.check)
	buf = binary.BigEndian.AppendUint16(buf, uint16(first))
	for i := range min(n, maxEntries) {
		id := l.nth((first+i)%n, l.cfg.Node, to.Node)
		buf = appendSighting(buf, l.sighting(id))
	}
	return buf
}

// nth is the node at a place in the order of all but two.
func (l *Link) nth(i int, a, b uint16) uint16 {
	if a > b {
		a, b = b, a
	}
	for _, skip := range [2]uint16{a, b} {
		if l.order[i] >= skip {
			i++
		}
	}
	return l.order[i]
}

func (l *Link) sighting(id uint16) sighting {
	at, slot, ok := l.d.Sighting(uint32(id))
	if !ok {
		return sighting{age: noAge * time.Millisecond}
	}
	return sighting{age: l.now - at, slot: uint16(slot)}
}

// take handles datagrams that were read.
func (l *Link) take(n int) {
	for i := range n {
		l.hear(l.in[i].buf[:l.in[i].n])
	}
	l.flush()
}

// hear handles one datagram.
func (l *Link) hear(data []byte) {
	p, r := l.sender(data)
	if r != OK {
		l.strays[r].Add(1)
		return
	}
	b, err := parse(data[:len(data)-tagSize])
	if err != nil { // in his hand, and of a kind that a later version may know
		p.in[OtherVersion].Add(1)
		return
	}
	fresh, restarted := p.marks.Take(&b)
	if !fresh { // a copy, or one that was overtaken: it proves nothing
		p.in[Old].Add(1)
		return
	}
	p.in[OK].Add(1)
	p.heard.Store(int64(l.now))
	if restarted {
		l.d.Restart(uint32(p.Node))
	}
	switch b.Kind {
	case KindBeat, KindVector:
		l.d.Hear(uint32(p.Node), 0, uint64(b.Seq), l.now)
		if b.Kind == KindVector && !l.hearVector(p, b.Body) {
			p.in[BadVector].Add(1)
		}
	case KindVotes:
		l.tell(Event{Node: p.Node, Votes: slices.Clone(b.Body)})
	case KindAsk:
		l.reply(p, b.Body)
	case KindReply:
		l.hearReply(p, b.Body)
	case KindLeave:
		l.d.Leave(uint32(p.Node), uint64(b.Seq), l.now)
	}
}

// sender finds out who sent a datagram, and whether it is in his hand.
func (l *Link) sender(data []byte) (*peer, Result) {
	node, err := Sender(data)
	if errors.Is(err, ErrVersion) {
		return nil, OtherVersion
	}
	p := l.byNode[node]
	if err != nil || p == nil || len(data) > MaxDatagram {
		return nil, Refused
	}
	for _, s := range p.open {
		if s.sealed(data) {
			return p, OK
		}
	}
	return nil, Refused
}

// hearVector takes a peer's word on others; false when the peer sets differ.
func (l *Link) hearVector(from *peer, body []byte) bool {
	n := len(l.order) - 2
	if len(body) == 0 {
		return true
	}
	if len(body) < vectorHead || binary.BigEndian.Uint16(body) != l.check || n <= 0 {
		return false
	}
	first := int(binary.BigEndian.Uint16(body[2:]))
	for i, rest := 0, body[vectorHead:]; len(rest) >= entrySize && i < n; i, rest = i+1, rest[entrySize:] {
		l.report(l.nth((first+i)%n, from.Node, l.cfg.Node), from, rest)
	}
	return true
}

// report takes one entry. What the relay heard counts from when it heard it.
func (l *Link) report(id uint16, from *peer, entry []byte) {
	s, ok := parseSighting(entry)
	if !ok {
		return
	}
	if slot, ok := whole(s.slot, l.d.Slot(uint32(id))); ok {
		l.d.Report(uint32(id), uint32(from.Node)+1, slot, l.now-s.age, l.now)
	}
}

// ask asks peers about those whose direct path owes a beat, once an interval.
func (l *Link) ask() {
	ids := l.body[:0]
	for _, p := range l.peers {
		if len(ids) < 2*maxAsked && l.now-p.asked >= l.cfg.Times.Interval && l.d.Suspect(uint32(p.Node), l.now) {
			p.asked = l.now
			ids = binary.BigEndian.AppendUint16(ids, p.Node)
		}
	}
	if len(ids) == 0 {
		return
	}
	ids = slices.Clone(ids) // the buffer is for bodies; suspicion is rare
	l.counts[KindAsk]++
	for range min(len(l.peers), maxEntries) {
		l.asked = (l.asked + 1) % len(l.peers)
		l.queue(l.peers[l.asked], KindAsk, l.counts[KindAsk], func(buf []byte, _ *peer) []byte { return append(buf, ids...) })
	}
	l.flush()
}

// reply answers an ask.
func (l *Link) reply(to *peer, asked []byte) {
	l.counts[KindReply]++
	l.queue(to, KindReply, l.counts[KindReply], func(buf []byte, _ *peer) []byte {
		for i := 0; i+2 <= len(asked) && i < 2*maxAsked; i += 2 {
			id := binary.BigEndian.Uint16(asked[i:])
			buf = appendSighting(append(buf, asked[i:i+2]...), l.sighting(id))
		}
		return buf
	})
}

func (l *Link) hearReply(from *peer, body []byte) {
	const size = 2 + entrySize
	for ; len(body) >= size; body = body[size:] {
		if id := binary.BigEndian.Uint16(body); id != from.Node && l.byNode[id] != nil {
			l.report(id, from, body[2:])
		}
	}
}

// publish tells what has changed.
func (l *Link) publish(held bool) bool {
	now := l.d.Held()
	if now != held {
		on := now // an event lives on; this function is called a thousand times a second
		l.tell(Event{Hold: &on})
	}
	for _, c := range l.d.Changes() {
		if p := l.byNode[uint16(c.Subject)]; p != nil {
			l.tell(Event{Node: p.Node, Change: &c})
		}
	}
	return now
}
