package api

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rhumb/placement"
)

// Check is one check of one address as a node sees it.
type Check struct {
	// Vantage is the node which looked.
	Vantage string `json:"vantage"`
	placement.CheckStatus
}

// ChecksOf lists the checks of a site's clusters, those that somebody should look
// at first; site "" means every site. A unit reports a bounded number of them.
func ChecksOf(s State, site string) []Check {
	out := []Check{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Health == nil || site != "" && n.Site != site {
			continue
		}
		for _, c := range n.Health.Checks {
			out = append(out, Check{Vantage: n.Name, CheckStatus: c})
		}
	}
	slices.SortStableFunc(out, func(a, b Check) int {
		return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), a.Cluster.Compare(b.Cluster), a.Address.Compare(b.Address),
			strings.Compare(a.Check, b.Check), strings.Compare(a.Vantage, b.Vantage))
	})
	return out
}

// Figure is the availability of a server, site or service from one vantage.
type Figure struct {
	Vantage string `json:"vantage"`
	Site    string `json:"site"` // the vantage's
	placement.Availability
	Available float64 `json:"available"` // part of the watched time
}

// FiguresOf lists what the vantages counted since they started, by figure, name and
// vantage. They are not summed up: what one vantage sees fail may serve the others.
func FiguresOf(s State, site string) []Figure {
	out := []Figure{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Health == nil || site != "" && n.Site != site {
			continue
		}
		for _, a := range n.Health.Availability {
			out = append(out, Figure{Vantage: n.Name, Site: n.Site, Availability: a, Available: a.Part()})
		}
	}
	order := []placement.Figure{placement.ServiceFigure, placement.SiteFigure, placement.ServerFigure}
	slices.SortStableFunc(out, func(a, b Figure) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Figure), slices.Index(order, b.Figure)),
			strings.Compare(a.Name, b.Name), strings.Compare(a.Vantage, b.Vantage))
	})
	return out
}

func (s *Server) getChecks(r *http.Request) (any, error) {
	st := s.cfg.State()
	site, err := siteFilter(&st, r)
	if err != nil {
		return nil, fmt.Errorf("checks: %w", err)
	}
	return list(&st, "CheckList", ChecksOf(st, site)), nil
}

func (s *Server) getAvailability(r *http.Request) (any, error) {
	st := s.cfg.State()
	site, err := siteFilter(&st, r)
	if err != nil {
		return nil, fmt.Errorf("availability: %w", err)
	}
	return list(&st, "AvailabilityList", FiguresOf(st, site)), nil
}
