package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"rhumb/placement"
)

// Twin is an input-delayed twin.
type Twin struct {
	Node string `json:"node"`
	Unit string `json:"unit"`
	Site string `json:"site"`
	placement.TwinStatus
}

// TwinFeed is the feed of an input-delayed twin.
type TwinFeed interface {
	// Release lets it go on: what came so far is forgotten, what is in force now comes
	// after the delay.
	Release(ctx context.Context, who, reason string) (Outcome, error)
}

// TwinsOf lists the twins that the store shows, a line for each unit.
func TwinsOf(s State) []Twin {
	var out []Twin
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Twin != nil && slices.Contains(n.Roles, "authdns") {
			out = append(out, Twin{Node: n.Name, Unit: n.Unit, Site: n.Site, TwinStatus: *n.Twin})
		}
	}
	return out
}

func (s *Server) postTwinRelease(r *http.Request) (any, error) {
	var req ReasonRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if err := needReason(req.Reason); err != nil {
		return nil, fmt.Errorf("release of the twin: %w", err)
	}
	if s.cfg.Ops.Twin == nil {
		return nil, fmt.Errorf("release of the twin: %w", ErrNotHere)
	}
	return s.change(r, "twin-release", s.cfg.Identity.Node, req.Reason, func(who string) (Outcome, error) {
		return s.cfg.Ops.Twin.Release(r.Context(), who, req.Reason)
	})
}
