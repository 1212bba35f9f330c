package edge

import (
	"slices"

	"rhumb/edge/frame"
	"rhumb/edge/reserve"
)

// rendezvous orders peers for one session: weighted highest-random-weight
// hashing. Every site computes the same order, and a change of one peer moves
// only the sessions it had or gets. Peers without weight are left out.
func rendezvous(k frame.Key, peers []Peer) []Peer {
	var c reserve.Chooser
	order := c.Order(make([]int, 0, len(peers)), appendKey(nil, k), candidates(peers, nil))
	out := make([]Peer, len(order))
	for i, n := range order {
		out[i] = peers[n]
	}
	return out
}

// rank is a site's place in the order, from 0; -1 if it is not in it.
func rank(k frame.Key, site string, peers []Peer) int {
	return slices.IndexFunc(rendezvous(k, peers), func(p Peer) bool { return p.Name == site })
}

// appendKey is what the order of a session follows from: the text of its key.
func appendKey(b []byte, k frame.Key) []byte {
	return k.VIP.AppendTo(append(k.Client.AppendTo(b), '>'))
}

// candidates are peers as Backups of an owner that has its part in failure domains.
func candidates(peers []Peer, domains []string) []reserve.Site {
	out := make([]reserve.Site, len(peers))
	for i := range peers {
		p := &peers[i]
		out[i] = reserve.Site{Name: p.Name, Weight: p.Weight, Shares: shares(p.Domains, domains)}
	}
	return out
}

// shares reports whether two lists of failure domains have one in common.
func shares(a, b []string) bool {
	return slices.ContainsFunc(a, func(d string) bool { return slices.Contains(b, d) })
}
