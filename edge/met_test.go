package edge

import (
	"context"
	"testing"

	"rhumb/edge/content"
)

// statusSource finds nothing, with a status.
type statusSource struct {
	source
	status int
}

func (s statusSource) Lookup(context.Context, string) content.Entry {
	return content.Entry{Status: s.status}
}

// TestRequestsAreMet: what is the server's fault, and what is not.
func TestRequestsAreMet(t *testing.T) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		ctx    context.Context
		status int
		told   string
	}{
		{t.Context(), 0, "ok"}, {t.Context(), 404, "ok"}, {t.Context(), 502, "error"}, {t.Context(), 503, "error"},
		{gone, 503, ""}, // the client went away
	} {
		told := ""
		m := &metered{statusSource{status: c.status}, func(ok bool) { told = map[bool]string{true: "ok", false: "error"}[ok] }}
		if e := m.Lookup(c.ctx, "x"); e.Status != c.status || told != c.told {
			t.Errorf("status %d: told %q, want %q", c.status, told, c.told)
		}
	}
}
