package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// Wave tells, by what name servers say of themselves in the store, whether something
// goes round that they do not stand. One that restarts, is upgraded or is stopped for
// a moment is no sign; one that crashed, that had to put a query's kind into
// quarantine, or that is gone for longer than a restart takes, is. So is a prefix which
// this node announces and all others have left for as long.
//
//	signs of            with Least 2
//	one of many         goes on
//	two of many         a wave
//	the only other one  a wave
//
// The zero value of seen and left is ready; a Wave belongs to one goroutine.
type Wave struct {
	Node string
	// Least is how many others must show a sign.
	Least int
	// Within is how long a sign counts, and Grace how long one may be away.
	Within, Grace time.Duration
	// Since is when an operator last said that all is well: what was before counts no more.
	Since time.Time

	// seen are the name servers that were there, left the prefixes that others announced:
	// from when on they are not there any more; zero while they are.
	seen map[string]time.Time
	left map[netip.Prefix]time.Time
}

// Look takes in what the store shows now, and says what the wave is; "": there is none.
// It must not be called while the store is away: everybody would be gone.
func (w *Wave) Look(now time.Time, nodes []placement.Node, announced []placement.Announced) string {
	if w.seen == nil {
		w.seen, w.left = make(map[string]time.Time), make(map[netip.Prefix]time.Time)
	}
	signs := make(map[string]string)
	present := make(map[string]bool)
	for i := range nodes {
		n := &nodes[i]
		if n.DNS == nil || n.Name == w.Node || n.Twin != nil {
			continue // another twin lives in the past as well
		}
		present[n.Name] = true
		w.seen[n.Name] = time.Time{}
		if sign := w.ill(now, n.DNS); sign != "" {
			signs[n.Name] = sign
		}
	}
	for name, gone := range w.seen {
		if present[name] {
			continue
		}
		if gone.IsZero() {
			gone = now
			w.seen[name] = gone
		}
		switch away := now.Sub(gone); {
		case away > w.Within:
			delete(w.seen, name) // taken away for good
		case away >= w.Grace && gone.After(w.Since):
			signs[name] = "gone since " + gone.UTC().Format("15:04:05")
		}
	}
	if len(signs) > 0 && len(signs) >= min(w.Least, len(w.seen)) {
		return fmt.Sprintf("%d of %d other name servers: %s", len(signs), len(w.seen), list(signs))
	}
	return w.alone(now, announced)
}

// ill is what a name server says of the harm done to it.
func (w *Wave) ill(now time.Time, d *placement.DNSStatus) string {
	recent := func(at time.Time) bool { return !at.IsZero() && at.After(w.Since) && now.Sub(at) <= w.Within }
	switch {
	case recent(d.Crashed):
		return "crashed at " + d.Crashed.UTC().Format("15:04:05")
	case recent(d.Confined):
		return "queries in quarantine since " + d.Confined.UTC().Format("15:04:05")
	}
	return ""
}

// alone finds a prefix that this node announces and nobody else any more. The only other
// speaker may be restarted.
func (w *Wave) alone(now time.Time, announced []placement.Announced) string {
	others, ours := make(map[netip.Prefix]bool), make(map[netip.Prefix]bool)
	for _, a := range announced {
		switch {
		case a.Step >= placement.Withdrawn:
		case a.Node == w.Node:
			ours[a.Prefix] = true
		case !a.Twin:
			others[a.Prefix] = true
			w.left[a.Prefix] = time.Time{}
		}
	}
	for p, gone := range w.left {
		if others[p] {
			continue
		}
		if gone.IsZero() {
			gone = now
			w.left[p] = gone
		}
		if ours[p] && now.Sub(gone) >= w.Grace {
			return fmt.Sprintf("no other node has announced %s since %s", p, gone.UTC().Format("15:04:05"))
		}
	}
	return ""
}

// Clear says that all is well: signs of before now count no more.
func (w *Wave) Clear(now time.Time) {
	w.Since = now
	clear(w.left)
}

// list writes signs in order of name, the first few of them.
func list(signs map[string]string) string {
	var out []string
	for name, sign := range signs {
		out = append(out, name+" "+sign)
	}
	slices.Sort(out)
	const shown = 3
	if more := len(out) - shown; more > 0 {
		out = append(out[:shown], fmt.Sprintf("%d more", more))
	}
	return strings.Join(out, ", ")
}
