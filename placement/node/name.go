package node

import "rhumb/placement"

// commonName gives a snapshot of votes that were read in a list the name by which others
// know it: the newest of those who saw the last vote come or go, else, where nobody did,
// the oldest of those who read a list as well. So one state has one name, wherever a node
// was cut off or has just been started. Who has the same plan and the same digest serves
// the same; a name that is later than our own list says more than we know.
func commonName(s *placement.Snapshot, nodes []placement.Node) *placement.Snapshot {
	seen, listed := int64(-1), s.Name.Votes
	for i := range nodes {
		n := &nodes[i]
		name, err := placement.ParseName(n.Snapshot)
		if err != nil || name.Patched || name.Plan != s.Name.Plan || n.Digest != s.Digest || name.Votes > s.Name.Votes {
			continue
		}
		if n.Listed {
			listed = min(listed, name.Votes)
		} else {
			seen = max(seen, name.Votes)
		}
	}
	out := *s
	out.Listed = true
	if out.Name.Votes = listed; seen >= 0 {
		out.Name.Votes = seen
	}
	return &out
}
