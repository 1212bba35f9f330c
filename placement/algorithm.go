package placement

import (
	"fmt"
	"slices"
)

// Algorithm is the newest version of the deterministic code which turns a Plan into a
// Snapshot. Nodes of versions N and N-1 work side by side: the director publishes only
// a version that every live node can run, and each binary runs both.
//
//	1  the first
//	2  borders of a division are rounded, not its parts; rtt, cname, skip_first, answers, and
//	   the all-down rules static, last_good, all and closest; a drained cluster that was
//	   down and is up again stays drained
const Algorithm = 2

// Algorithms lists the versions that this binary runs.
func Algorithms() []int { return []int{Algorithm - 1, Algorithm} }

// MinAlgorithm is the version from which on a fleet is decided as it says, and what in
// it asks for that. Releases before leave out what they do not know, and would decide
// something else; each version that adds to a policy or cluster adds to this.
func (f *Fleet) MinAlgorithm() (version int, why string) {
	if len(f.RTT) > 0 {
		return 2, "rtt"
	}
	for i := range f.Sites {
		for _, c := range f.Sites[i].Clusters {
			if c.CNAME != "" {
				return 2, fmt.Sprintf("cname of cluster %s/%s", f.Sites[i].Name, c.Name)
			}
		}
	}
	for i := range f.Policies {
		if what := f.Policies[i].second(); what != "" {
			return 2, what + " of policy " + f.Policies[i].Name
		}
	}
	return 1, ""
}

// second names what of a policy came with version 2.
func (p *Policy) second() string {
	switch {
	case p.SkipFirst > 0:
		return "skip_first"
	case p.Answers.Set():
		return "answers"
	case slices.Contains([]AllDown{Static, LastGood, All, Closest}, p.AllDown):
		return "all_down " + string(p.AllDown)
	}
	return ""
}

// Runs tells whether a node runs a version; one that names none has not said yet.
func (n *Node) Runs(algorithm int) bool {
	return len(n.Algorithms) == 0 || slices.Contains(n.Algorithms, algorithm)
}

// CommonAlgorithm is the newest version that all nodes run; 0 where there is none, and
// otherwise says why it is not the newest of all: the node that does not run that.
func CommonAlgorithm(nodes []Node) (version int, old *Node) {
	for _, version := range slices.Backward(Algorithms()) {
		i := slices.IndexFunc(nodes, func(n Node) bool { return !n.Runs(version) })
		if i < 0 {
			return version, old
		}
		old = &nodes[i]
	}
	return 0, old
}
