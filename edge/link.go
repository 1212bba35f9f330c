package edge

import (
	"bufio"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"

	"rhumb/edge/frame"
)

// Bounds of a link.
const (
	linkQueue = 1024 // frames
	// linkBuffer in octets is filled before they leave.
	linkBuffer = 64 << 10
)

// link is one connection to another site's agent, over which both sides send
// frames. Its two goroutines end with it.
type link struct {
	peer string // by its certificate
	conn *tls.Conn
	out  chan []byte
	done chan struct{} // closed when the link is dead
	once sync.Once

	// order is held while a numbered frame is queued, mu never: who reads the
	// acknowledgements makes room in the queue.
	order   sync.Mutex
	mu      sync.Mutex
	window  frame.Window  // numbered frames sent
	waits   []wait        // for the acknowledgement of some, in their order
	receipt frame.Receipt // numbered frames received; reader's only
	// more reports whether further frames are here already, owed that an acknowledgement
	// waits for them; reader's only. nil: none.
	more func() bool
	owed bool
	// refusals are whole frames that leave before the next acknowledgement; reader's only.
	refusals []byte
	naming
	// greeted is kept when the other side's Hello was read, which says what it takes.
	greeted  *pledge
	guests   atomic.Bool
	uploads  atomic.Bool
	sealed   atomic.Bool // uploads over TLS too
	pieces   atomic.Bool
	deposits atomic.Bool
}

// wait is kept when the frame of a number is acknowledged.
type wait struct {
	seq  uint64
	kept *pledge
}

var errLink = errors.New("link is down")

// send queues a frame. It blocks while the queue is full and the link lives.
func (l *link) send(f frame.Frame) error {
	b, err := frame.Append(nil, f)
	if err != nil {
		return err
	}
	return l.queue(b)
}

func (l *link) queue(b []byte) error {
	select {
	case <-l.done:
		return errLink
	default:
	}
	select {
	case l.out <- b:
		return nil
	case <-l.done:
		return errLink
	}
}

// try is send that does not wait: what a full queue does not take is lost.
func (l *link) try(f frame.Frame) {
	b, err := frame.Append(nil, f)
	if err != nil {
		return
	}
	select {
	case l.out <- b:
	default:
	}
}

// sendNumbered gives f the next number; numbers leave in order. kept, if any, is
// kept when the other side has acknowledged it.
func (l *link) sendNumbered(f frame.Frame, kept *pledge) error {
	l.order.Lock()
	defer l.order.Unlock()
	b, err := l.number(nil, f, kept)
	if err != nil {
		return err
	}
	return l.queue(b)
}

// number encodes f behind b under the next number.
func (l *link) number(b []byte, f frame.Frame, kept *pledge) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Seq = l.window.Next()
	b, err := frame.Append(b, f)
	if err == nil && kept != nil {
		l.waits = append(l.waits, wait{f.Seq, kept})
	}
	return b, err
}

// ack acknowledges what was received, unless the queue is full: the next one tells the
// same and more. Were the reader to wait, two sites that send much to each other could
// wait for ever.
func (l *link) ack(seq uint64) {
	if l.owed = l.more != nil && l.more(); l.owed || !l.tellRefusals() {
		return // one tells of all that came together
	}
	b, err := frame.Append(nil, frame.Frame{Type: frame.Ack, Seq: seq})
	if err != nil {
		return
	}
	select {
	case l.out <- b:
	default:
	}
}

// acked takes a cumulative acknowledgement.
func (l *link) acked(seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.window.Ack(seq); err != nil {
		return err
	}
	n := 0
	for ; n < len(l.waits) && l.waits[n].seq <= seq; n++ {
		l.waits[n].kept.keep()
	}
	l.waits = l.waits[n:]
	return nil
}

// takes reports whether the other side knows uploads of such sessions.
func (l *link) takes(sealed bool) bool {
	return l.uploads.Load() && (!sealed || l.sealed.Load())
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		l.conn.Close()
	})
}

// met notes what the other side's hello says of it.
func (l *link) met(hello frame.Frame) {
	l.reads.Store(hello.Generation&frame.ReadsNames != 0)
	l.guests.Store(hello.Generation&frame.TakesGuests != 0)
	l.uploads.Store(hello.Generation&frame.ReadsUploads != 0)
	l.sealed.Store(hello.Generation&frame.ReadsSealed != 0)
	l.pieces.Store(hello.Generation&frame.ReadsPieces != 0)
	l.deposits.Store(hello.Generation&frame.TakesDeposits != 0)
	l.greeted.keep()
}

// write sends what is queued, many frames in one record where they wait.
func (l *link) write() {
	defer l.close()
	w := bufio.NewWriterSize(l.conn, linkBuffer)
	for {
		select {
		case b := <-l.out:
			if _, err := w.Write(b); err != nil {
				return
			}
		case <-l.done:
			return
		}
		if len(l.out) == 0 {
			if err := w.Flush(); err != nil {
				return
			}
		}
	}
}
