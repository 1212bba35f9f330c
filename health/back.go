package health

import (
	"time"

	"rhumb/placement"
)

// returns damps what is voted on other sites, as a damper does for servers: a
// vote down is cast at once; one that takes it back waits for the penalty. It is a
// value for the goroutine of the agent.
type returns map[placement.ClusterID]*absence

// absence is the past of one site.
type absence struct {
	flaps penalty
	down  bool // as voted
	heard bool // seen up again, while the vote says down
}

// left notes that a site is voted down.
func (r returns) left(id placement.ClusterID, now time.Time, halfLife time.Duration) {
	a := r[id]
	if a == nil {
		a = new(absence)
		r[id] = a
	}
	a.flaps.halfLife = halfLife
	if !a.down || a.heard {
		a.flaps.add(now)
	}
	a.down, a.heard = true, false
}

// back notes that a site is heard; true when that may be voted now.
func (r returns) back(id placement.ClusterID, now time.Time) bool {
	a := r[id]
	if a == nil || !a.down {
		return true
	}
	a.heard = true
	return r.free(a, now)
}

// due are the sites of ids which may be voted up now.
func (r returns) due(ids []placement.ClusterID, now time.Time) (out []placement.ClusterID) {
	for _, id := range ids {
		if a := r[id]; a != nil && a.heard && r.free(a, now) {
			out = append(out, id)
		}
	}
	return out
}

func (r returns) free(a *absence, now time.Time) bool {
	if !a.flaps.reusable(now) {
		return false
	}
	a.down, a.heard = false, false
	return true
}
