package edge

import (
	"context"
	"net/http"
)

// metered tells how requests end which need an object: clients meet what no look at
// the server meets.
type metered struct {
	source
	met func(ok bool)
}

// lookup finds an object. A status of the server's fault (RFC 9110, 15.6) is an
// error; that the client went away is nobody's.
func (m *metered) lookup(ctx context.Context, name string) entry {
	e := m.source.lookup(ctx, name)
	if ctx.Err() == nil {
		m.met(e.status < http.StatusInternalServerError)
	}
	return e
}
