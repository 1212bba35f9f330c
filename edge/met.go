package edge

import (
	"context"
	"net/http"

	"rhumb/edge/content"
)

// metered tells how requests end which need an object: clients meet what no look at
// the server meets.
type metered struct {
	source
	met func(ok bool)
}

// Lookup finds an object. A status of the server's fault (RFC 9110, 15.6) is an
// error; that the client went away is nobody's.
func (m *metered) Lookup(ctx context.Context, name string) content.Entry {
	e := m.source.Lookup(ctx, name)
	if ctx.Err() == nil {
		m.met(e.Status < http.StatusInternalServerError)
	}
	return e
}
