package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"rhumb/placement"
)

// The status words of a site. Each has a shape of its own, so that neither
// colour nor language is needed to tell them apart.
const (
	StatusUp       = "up"
	StatusDegraded = "degraded"
	StatusDraining = "draining"
	StatusDown     = "down"
	StatusUnknown  = "unknown"
)

// Shape returns the shape of a status word, in Unicode or in ASCII.
func Shape(status string, ascii bool) string {
	shapes := [2]string{"■", "?"}
	switch status {
	case StatusUp:
		shapes = [2]string{"●", "o"}
	case StatusDegraded:
		shapes = [2]string{"▲", "^"}
	case StatusDraining:
		shapes = [2]string{"◆", "*"}
	case StatusDown:
		shapes = [2]string{"✖", "x"}
	}
	if ascii {
		return shapes[1]
	}
	return shapes[0]
}

// severity orders rows: worst first.
func severity(status string) int {
	return slices.Index([]string{StatusDown, StatusUnknown, StatusDegraded, StatusDraining, StatusUp}, status)
}

// judge finds the one word for a site, since when, and why. The order is the
// order of consequence: what clients meet first decides.
func (row *Site) judge(s *State) {
	if s.Snapshot == nil {
		row.Status, row.Reason = StatusUnknown, "no snapshot yet"
		return
	}
	v := s.Snapshot.Verdict(placement.SiteID(row.Name))
	row.Since = v.Since
	switch d := row.Intents.Drain; {
	case !v.Usable():
		row.Status, row.Reason = StatusDown, downReason(&v, row.Intents.Force)
	case row.allClustersDown():
		row.Status, row.Reason = StatusDown, "every cluster is down: "+row.worst().Verdict.Cause
		row.Since = row.worst().Verdict.Since
	case d != nil:
		row.Status, row.Since = StatusDraining, d.Since
		row.drain(s, d)
	case v.State == placement.Unknown && v.Force == placement.NoForce && row.nothingHeard():
		row.Status, row.Reason = StatusUnknown, "nothing heard yet; it serves"
	default:
		row.Status = StatusUp
		row.weaknesses(&v)
	}
	if st := s.plan().Drain(row.Name); st != nil && row.Phase == "" {
		row.Phase = string(st.Phase)
		row.Reason = cmp.Or(row.Reason, row.Phase)
	}
}

func downReason(v *placement.Verdict, forces []placement.Force) string {
	if v.Force == placement.ForceDown {
		for _, f := range forces {
			if f.Object == v.Object {
				return "forced down by " + f.Who + ": " + f.Reason
			}
		}
		return "forced down"
	}
	return cmp.Or(v.Cause, fmt.Sprintf("%d of %d domains say down", v.DownDomains, v.Domains))
}

func (row *Site) allClustersDown() bool {
	return len(row.Clusters) > 0 && !slices.ContainsFunc(row.Clusters, func(c Cluster) bool { return c.Usable })
}

// worst returns the cluster that went down last.
func (row *Site) worst() *Cluster {
	out := &row.Clusters[0]
	for i := range row.Clusters {
		if row.Clusters[i].Verdict.Since.After(out.Verdict.Since) {
			out = &row.Clusters[i]
		}
	}
	return out
}

func (row *Site) nothingHeard() bool {
	return !slices.ContainsFunc(row.Clusters, func(c Cluster) bool { return c.Verdict.State != placement.Unknown })
}

// drain says who drains the site, until when, and how far it has come.
func (row *Site) drain(s *State, d *placement.Drain) {
	row.Phase = string(placement.PhasePlan)
	if st := s.plan().Drain(row.Name); st != nil {
		row.Phase, row.Since = string(st.Phase), st.Since
	}
	row.Reason = d.Who + ": " + d.Reason
	switch {
	case d.Expired(s.Now):
		row.Reason += ", EXPIRED " + d.Until.UTC().Format("15:04Z") + " and still drained"
	case !d.Until.IsZero():
		row.Reason += ", until " + d.Until.UTC().Format("15:04Z")
	}
}

// weaknesses makes an up site degraded where a part of it fails.
func (row *Site) weaknesses(v *placement.Verdict) {
	var why []string
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	switch {
	case v.Capped:
		add("down but kept by the removal cap: %s", v.Cause)
	case v.State == placement.Path:
		add("path broken: %s", v.Cause)
	case v.State == placement.Degraded, v.State == placement.Down:
		add("%s", cmp.Or(v.Cause, v.State.String()))
	}
	for _, c := range row.Clusters {
		switch state := c.Verdict.State; {
		case !c.Usable, state == placement.Down, state == placement.Degraded:
			add("%s %s: %s", c.Name, state, cmp.Or(c.Verdict.Cause, "no cause told"))
			if c.Verdict.Since.After(row.Since) {
				row.Since = c.Verdict.Since
			}
		}
	}
	if row.BGP.Established < row.BGP.Configured {
		add("%d/%d BGP peers", row.BGP.Established, row.BGP.Configured)
	}
	if len(why) > 0 {
		row.Status = StatusDegraded
	}
	if d := row.Intents.Dial; d != nil {
		add("dialled to %g %% by %s: %s", float64(d.PerMille)/10, d.Who, d.Reason)
	}
	for _, d := range row.Intents.ClusterDials {
		_, name, _ := strings.Cut(d.Site, "/")
		add("%s dialled to %g %% by %s: %s", name, float64(d.PerMille)/10, d.Who, d.Reason)
	}
	if v.Force == placement.ForceUp {
		add("forced up")
	}
	row.Reason = strings.Join(why, "; ")
}
