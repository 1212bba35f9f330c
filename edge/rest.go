package edge

import (
	"context"
	"net/http"
	"time"
)

// restLimit is how long a client waits that wants the rest of an object which is on
// its way here. Then it is told to come again.
const restLimit = 10 * time.Second

// lookup finds what a request asks for. Whether a part is one of the object that the
// client has begun with is known when that is whole here: a client that comes from
// another site, and is the first to want it at this one, would be told that it has
// changed.
func (s *service) lookup(ctx context.Context, req request) entry {
	e := s.source.lookup(ctx, req.name)
	f, coming := e.body.(*fetch)
	if !coming || req.rangeSpec == "" || req.ifRange == "" || req.method != http.MethodGet {
		return e
	}
	late := time.NewTimer(restLimit)
	defer late.Stop()
	select {
	case <-f.done:
	case <-late.C:
	case <-ctx.Done():
	}
	if obj := f.whole(); obj != nil {
		return entry{found{hash: obj.hash, size: obj.size, known: true}, obj}
	}
	return entry{found: found{status: http.StatusServiceUnavailable}}
}
