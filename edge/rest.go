package edge

import (
	"context"
	"net/http"
	"time"

	"rhumb/edge/content"
)

// restLimit is how long a client waits that wants the rest of an object which is on
// its way here. Then it is told to come again.
const restLimit = 10 * time.Second

// lookup finds what a request asks for. Whether a part is one of the object that the
// client has begun with is known when that is whole here: a client that comes from
// another site, and is the first to want it at this one, would be told that it has
// changed.
func (s *service) lookup(ctx context.Context, req request) content.Entry {
	e := s.source.Lookup(ctx, req.name)
	if !e.Coming() || req.rangeSpec == "" || req.ifRange == "" || req.method != http.MethodGet {
		return e
	}
	ctx, cancel := context.WithTimeout(ctx, restLimit)
	defer cancel()
	return e.Whole(ctx)
}
