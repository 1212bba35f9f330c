package content

import (
	"context"
	"net/http"
)

// Body yields an object's octets. At returns a slice that starts at off, in octets, and
// holds at least one; it is verified, and may be shared: read only.
type Body interface {
	At(off int64) ([]byte, error)
}

// Entry is what a name stands for when it is asked for: an object, octets that are still
// on their way, or nothing.
type Entry struct {
	Status int      // not 0: there is nothing, and this status of HTTP (RFC 9110, section 15) says why
	Hash   [32]byte // of the object, if Known
	Size   int64    // octets
	Known  bool     // the object is whole here; else Hash is zero, and Body follows what comes
	Body   Body     // nil with a Status
}

// Coming reports whether the object is on its way.
func (e Entry) Coming() bool {
	_, coming := e.Body.(*fetch)
	return coming
}

// Whole waits until an object on its way is whole, and is that entry. If it does not come,
// or not before ctx ends, it is one of status 503. Any other entry is returned as it is.
func (e Entry) Whole(ctx context.Context) Entry {
	f, coming := e.Body.(*fetch)
	if !coming {
		return e
	}
	select {
	case <-f.done:
	case <-ctx.Done():
	}
	if obj := f.whole(); obj != nil {
		return obj.entry()
	}
	return Entry{Status: http.StatusServiceUnavailable}
}
