package placement

import (
	"cmp"
	"slices"
	"strings"
)

// LookRequest is a person's wish that checks are looked at now, without waiting for
// their turn. It changes no verdict by itself: each look counts once, as any other.
type LookRequest struct {
	ID string `json:"id"`
	// Site, Cluster and Check narrow it; empty means all of them.
	Site    string `json:"site,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	Check   string `json:"check,omitempty"`
	Who     string `json:"who"`
	Reason  string `json:"reason,omitempty"`
	At      Time   `json:"at"`
}

// Object is what is asked for, in words.
func (r *LookRequest) Object() string {
	out := cmp.Or(r.Site, "all sites")
	if r.Cluster != "" {
		out += "/" + r.Cluster
	}
	if r.Check != "" {
		out += " " + r.Check
	}
	return out
}

// Same tells whether two requests ask for the same.
func (r *LookRequest) Same(o *LookRequest) bool {
	return r.Site == o.Site && r.Cluster == o.Cluster && r.Check == o.Check
}

// Wants tells whether a check of a cluster is asked for.
func (r *LookRequest) Wants(id ClusterID, check string) bool {
	return (r.Site == "" || r.Site == id.Site) && (r.Cluster == "" || r.Cluster == id.Name) && (r.Check == "" || r.Check == check)
}

// LookAnswer is what one vantage found for a LookRequest so far.
type LookAnswer struct {
	Request string `json:"request"`
	Vantage string `json:"vantage"`
	Site    string `json:"site"` // the vantage's
	// Looks are those that came back, failed ones first; LookRows at most, of Total.
	Looks []FreshLook `json:"looks"`
	Total int         `json:"total"`
	Open  int         `json:"open"` // looks that are not back yet
	// Failed and Blind count among the Total those that did not pass, and those that
	// could not see. Evidence is left out of both: it judges nothing.
	Failed int `json:"failed"`
	Blind  int `json:"blind"`
}

// LookRows bounds an answer: it travels through the store.
const LookRows = 128

// FreshLook is a look on demand, with the state after it was counted.
type FreshLook struct {
	CheckStatus
	// Found is what the look itself says; State what it is taken for after all looks.
	Found State `json:"found"`
	// Repeated is set when a look on demand was made a moment ago: this is the last
	// result once more, and it was not counted again.
	Repeated bool `json:"repeated,omitempty"`
	// InRow of Needed looks that agree were made towards another State; 0: none.
	InRow  int `json:"in_row,omitempty"`
	Needed int `json:"needed,omitempty"`
}

// Add counts a look in.
func (a *LookAnswer) Add(l FreshLook) {
	a.Total++
	switch {
	case l.Evidence:
	case l.Found == Down:
		a.Failed++
	case l.Found == Unknown:
		a.Blind++
	}
	a.Looks = append(a.Looks, l)
	slices.SortStableFunc(a.Looks, func(x, y FreshLook) int {
		return cmp.Or(cmp.Compare(x.rank(), y.rank()), x.Cluster.Compare(y.Cluster), x.Address.Compare(y.Address), strings.Compare(x.Check, y.Check))
	})
	if len(a.Looks) > LookRows {
		a.Looks = a.Looks[:LookRows]
	}
}

func (l *FreshLook) rank() int {
	return slices.Index([]State{Down, Unknown, Degraded, Path, Up}, l.Found)
}
