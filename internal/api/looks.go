package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rhumb/placement"
)

// Looker has vantages look at once.
type Looker interface {
	// LookNow passes a request on and returns it as it stands: with its ID, or one that
	// asks for the same and was made a moment ago.
	LookNow(ctx context.Context, r placement.LookRequest) (placement.LookRequest, error)
}

// LookNow asks for looks at once; an empty field means all.
type LookNow struct {
	Site    string `json:"site,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	Check   string `json:"check,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// LookReport is what the vantages have found for a request so far.
type LookReport struct {
	placement.LookRequest
	// Answers of the vantages, by name.
	Answers []placement.LookAnswer `json:"answers"`
	// Awaited are the vantages that have not finished.
	Awaited []string `json:"awaited"`
	// Done is set when nobody is awaited.
	Done bool `json:"done"`
	// Failed and Blind sum up what did not pass, and what could not see.
	Failed int `json:"failed"`
	Blind  int `json:"blind"`
}

// LookReportOf puts together what is known of a request; ok is false if nobody knows it.
func LookReportOf(s State, id string) (r LookReport, ok bool) {
	i := slices.IndexFunc(s.Looks, func(q placement.LookRequest) bool { return q.ID == id })
	r = LookReport{Answers: []placement.LookAnswer{}, Awaited: []string{}}
	if i >= 0 {
		r.LookRequest = s.Looks[i]
	}
	open := make(map[string]bool)
	for k := range s.Nodes {
		n := &s.Nodes[k]
		if i >= 0 && slices.Contains(n.Roles, "health") && (r.Site == "" || r.Site == n.Site) {
			open[n.Name] = true
		}
	}
	for _, a := range s.Looked {
		if a.Request == id {
			r.Answers = append(r.Answers, a)
			r.Failed, r.Blind = r.Failed+a.Failed, r.Blind+a.Blind
			open[a.Vantage] = a.Open > 0
		}
	}
	for name, is := range open {
		if is {
			r.Awaited = append(r.Awaited, name)
		}
	}
	slices.Sort(r.Awaited)
	slices.SortFunc(r.Answers, func(a, b placement.LookAnswer) int { return strings.Compare(a.Vantage, b.Vantage) })
	r.Done = len(r.Awaited) == 0
	return r, i >= 0
}

func (s *Server) postLook(r *http.Request) (any, error) {
	var req LookNow
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	q := placement.LookRequest{Site: req.Site, Cluster: req.Cluster, Check: req.Check, Reason: req.Reason,
		Who: callerOf(r.Context()).who, At: s.clock().UTC()}
	if err := s.lookable(&q); err != nil {
		return nil, fmt.Errorf("look at %s: %w", q.Object(), err)
	}
	if s.cfg.Ops.Looker == nil {
		return nil, fmt.Errorf("look at %s: %w", q.Object(), ErrNotHere)
	}
	_, err := s.change(r, "look", q.Object(), req.Reason, func(string) (out Outcome, err error) {
		q, err = s.cfg.Ops.Looker.LookNow(r.Context(), q)
		return Outcome{Object: q.Object()}, err
	})
	if err != nil {
		return nil, err
	}
	report, ok := LookReportOf(s.cfg.State(), q.ID)
	if !ok { // this unit has yet to hear of it from the store
		report.LookRequest, report.Done = q, false
	}
	return report, nil
}

// lookable tells whether there is such a thing to look at.
func (s *Server) lookable(q *placement.LookRequest) error {
	inv := s.stateInventory()
	switch {
	case q.Cluster != "" && q.Site == "":
		return fmt.Errorf("%w: a cluster stands in a site; name it, too", ErrInvalid)
	case q.Site != "" && inv.Site(q.Site) == nil:
		return fmt.Errorf("site %s: %w", q.Site, ErrNotFound)
	case q.Cluster != "" && inv.Cluster(placement.ClusterID{Site: q.Site, Name: q.Cluster}) == nil:
		return fmt.Errorf("cluster %s/%s: %w", q.Site, q.Cluster, ErrNotFound)
	case q.Check != "" && inv.Check(q.Check) == nil:
		return fmt.Errorf("check %s: %w", q.Check, ErrNotFound)
	}
	return nil
}

func (s *Server) getLook(r *http.Request) (any, error) {
	id := r.PathValue("id")
	report, ok := LookReportOf(s.cfg.State(), id)
	if !ok {
		return nil, fmt.Errorf("look %s: %w; it is kept for a minute", id, ErrNotFound)
	}
	return report, nil
}
