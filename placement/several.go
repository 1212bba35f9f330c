package placement

import (
	"hash/fnv"
	"net/netip"
	"slices"
)

// Extra is a candidate that may stand in an answer beside the one that serves.
type Extra struct {
	Candidate uint16 // index into Row.Candidates
	// Upto is the part of the clients, per mille, in whose answers it may stand: what
	// a dial or a ramp leaves it.
	Upto uint16
}

// Clusters appends to out the clusters (indices into Map.Clusters) of which the answer
// is made, the one that serves first: by the policy's Answers the nearest that may be
// added, then others drawn. None of a lower tier is among them but where those above
// are too few. It allocates nothing where out has room for MaxAnswers.
//
// Who is drawn is a function of service, client block and cluster alone (rendezvous
// hashing), and the same every day: what is cached stays true, every name server says
// the same whatever its clock shows, and a cluster that comes or goes moves nobody
// else's draw.
func (c *Choice) Clusters(client netip.Addr, out []uint16) []uint16 {
	if c.Head < 0 {
		return out
	}
	out = append(out, c.Row.Candidates[c.Head].Cluster)
	nearest, random := c.wanted()
	if nearest+random < 2 || len(c.Row.Extras) == 0 {
		return out
	}
	seed := splitSeed(c.Map.Service.Name, client.Unmap())
	for i := range c.Row.Extras {
		if len(out) >= nearest {
			break
		}
		out = c.add(out, i, seed)
	}
	from := len(out)
	for range random {
		next := c.draw(out, seed)
		if next < 0 {
			break
		}
		out = c.add(out, next, seed)
	}
	c.prefer(out[from:])
	return out
}

// prefer puts the drawn in order of preference: equal sets are equal answers.
func (c *Choice) prefer(drawn []uint16) {
	at := 0
	for _, e := range c.Row.Extras {
		if i := slices.Index(drawn[at:], c.Row.Candidates[e.Candidate].Cluster); i >= 0 {
			drawn[at], drawn[at+i] = drawn[at+i], drawn[at]
			at++
		}
	}
}

// wanted is how many clusters the policy wants by nearness and by lot. Of clients of
// whom nothing is known none is nearer than another: they get the one that serves.
func (c *Choice) wanted() (nearest, random int) {
	a := c.Map.Policy.Answers
	if int(c.Class) >= len(c.Map.Rows)-1 {
		return 1, max(0, a.Nearest+a.Random-1)
	}
	return a.Nearest, a.Random
}

// add appends an extra, if this client's block is one in whose answers it may stand.
func (c *Choice) add(out []uint16, i int, seed uint64) []uint16 {
	e := &c.Row.Extras[i]
	cluster := c.Row.Candidates[e.Candidate].Cluster
	if slices.Contains(out, cluster) || e.Upto < 1000 && mix(mix(seed)^c.Map.Keys[cluster])%1000 >= uint64(e.Upto) {
		return out
	}
	return append(out, cluster)
}

// draw returns the extra with the highest lot in the first tier that has any left; -1
// where none is.
func (c *Choice) draw(out []uint16, seed uint64) int {
	best, tier, most := -1, uint8(0), uint64(0)
	for i := range c.Row.Extras {
		cand := &c.Row.Candidates[c.Row.Extras[i].Candidate]
		if best >= 0 && cand.Tier > tier {
			break // extras are in order of tier
		}
		lot := mix(seed ^ c.Map.Keys[cand.Cluster])
		if (best < 0 || lot > most) && len(c.add(out, i, seed)) > len(out) {
			best, tier, most = i, cand.Tier, lot
		}
	}
	return best
}

// Fixed tells whether all clients of the class get an answer of the same clusters:
// nobody is limited, and nothing is left to be drawn.
func (c *Choice) Fixed() bool {
	if c.Head < 0 || len(c.Row.Shares) > 1 {
		return false
	}
	others := 0
	for _, e := range c.Row.Extras {
		if e.Upto < 1000 {
			return false
		}
		if int(e.Candidate) != c.Head {
			others++
		}
	}
	nearest, random := c.wanted()
	return random == 0 || others <= nearest-1+random
}

// splitSeed is a number of a service and a client block.
func splitSeed(service string, client netip.Addr) uint64 {
	block := splitBlock(client)
	if !block.IsValid() {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(service))
	b := block.Addr().As16()
	h.Write(b[:])
	return h.Sum64()
}

// ClusterKeys are numbers of clusters that do not change when others come or go.
func ClusterKeys(ids []ClusterID) []uint64 {
	out := make([]uint64, len(ids))
	for i, id := range ids {
		h := fnv.New64a()
		h.Write([]byte(id.String()))
		out[i] = mix(h.Sum64())
	}
	return out
}

// several are the addresses of an answer of several clusters: one from each, and none
// twice where clusters share one (RFC 2181 section 5).
func (s *Snapshot) several(c *Choice, client netip.Addr, ipv6 bool) []netip.AddrPort {
	var clusters [MaxAnswers]uint16
	var out []netip.AddrPort
	for _, i := range c.Clusters(client, clusters[:0]) {
		all := s.Inventory.Addresses(c.Map.Clusters[i], ipv6)
		for _, a := range Rotated(all, c.Rotation(client, len(all)), 1) {
			if !slices.ContainsFunc(out, func(b netip.AddrPort) bool { return a.Addr() == b.Addr() }) {
				out = append(out, a)
			}
		}
	}
	return out
}
