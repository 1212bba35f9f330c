package frame

import "fmt"

// Window numbers the frames of one sender on one link, from 1. What was sent
// and not acknowledged is what the loss of the link may lose. It is not safe
// for concurrent use.
type Window struct {
	sent, acked uint64
}

// Next is the number of the next frame.
func (w *Window) Next() uint64 {
	w.sent++
	return w.sent
}

// Ack takes a cumulative acknowledgement. One of a frame never sent is an
// error, an older one than the last is not: acknowledgements may repeat.
func (w *Window) Ack(seq uint64) error {
	if seq > w.sent {
		return fmt.Errorf("frame: acknowledgement of %d, sent up to %d", seq, w.sent)
	}
	w.acked = max(w.acked, seq)
	return nil
}

// Unacked counts the frames that may be lost.
func (w *Window) Unacked() uint64 { return w.sent - w.acked }

// Receipt is the receiving end of a Window.
type Receipt struct{ last uint64 }

// Take accepts the next number. A gap means that the link lost a frame or
// the sender restarted; the link must then begin anew.
func (r *Receipt) Take(seq uint64) error {
	if seq != r.last+1 {
		return fmt.Errorf("frame: number %d after %d", seq, r.last)
	}
	r.last = seq
	return nil
}

// Last is what a cumulative acknowledgement names.
func (r *Receipt) Last() uint64 { return r.last }
