package edge

import "sync"

// buffer is what a session reads into.
type buffer [4 << 10]byte

// buffers keeps those of sessions that have ended for the next ones. Safe for concurrent
// use; nil keeps none.
type buffers struct{ spare sync.Pool }

// takeBuffer gives a session a buffer, unless it has one.
func (s *session) takeBuffer() {
	if s.buf != nil {
		return
	}
	if b := s.svc.buffers; b != nil {
		s.buf, _ = b.spare.Get().(*buffer)
	}
	if s.buf == nil {
		s.buf = new(buffer)
	}
}

// putBuffer gives it back. The session reads no more.
func (s *session) putBuffer() {
	if b := s.svc.buffers; b != nil && s.buf != nil {
		b.spare.Put(s.buf)
	}
	s.buf = nil
}
