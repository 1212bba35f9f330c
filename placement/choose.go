package placement

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

// Choice is which clusters serve one client of a service.
type Choice struct {
	Map *ServiceMap
	Row *Row
	// Head is the index into Row.Candidates of the cluster that serves; -1 when
	// the policy's all-down rule answers.
	Head int
	// Class and the prefix that says so.
	Class uint16
	Match netip.Prefix
	// Scope is the largest aligned client block that gets this same choice;
	// such blocks partition the space, so answers may be cached by scope in any order.
	Scope netip.Prefix
}

// The finest blocks among which the clients of one class are divided. Finer
// ones would make an answer per /24 of every resolver's cache.
const (
	SplitBits4 = 20
	SplitBits6 = 40
)

// Choose decides which cluster serves a client of a service. DNS answers,
// explain and simulate all call it; a nil Trace costs nothing. ok is false when
// there is no such service in the snapshot.
func (s *Snapshot) Choose(service string, client netip.Addr, tr *Trace) (c Choice, ok bool) {
	m := s.Map(service)
	if m == nil || len(m.Rows) == 0 {
		return Choice{}, false
	}
	client = client.Unmap()
	c.Map, c.Head = m, -1
	c.Class, c.Match = s.Classes.Class(client)
	c.Row = m.row(c.Class)
	if m.Blocks != nil && client.IsValid() {
		c.Scope = m.Blocks.Block(client)
	}
	hash := 0
	if n := len(c.Row.Shares); n == 1 {
		c.Head = int(c.Row.Shares[0].Candidate)
	} else if n > 1 {
		hash = splitHash(service, client)
		c.Head = c.Row.head(hash)
	}
	if tr != nil {
		tr.record(s, &c, hash)
	}
	return c, true
}

func (m *ServiceMap) row(class uint16) *Row {
	if int(class) < len(m.Rows)-1 {
		return m.Rows[class]
	}
	return m.Rows[len(m.Rows)-1]
}

func (r *Row) head(hash int) int {
	for _, sh := range r.Shares {
		if hash < int(sh.Upto) {
			return int(sh.Candidate)
		}
	}
	return int(r.Shares[len(r.Shares)-1].Candidate)
}

// splitHash places a client block in 0..999, the same on every node: clients of
// one block stay together, and each service divides them anew.
func splitHash(service string, client netip.Addr) int {
	bits := SplitBits4
	if client.Is6() {
		bits = SplitBits6
	}
	block, err := client.Prefix(bits)
	if err != nil {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(service))
	b := block.Addr().As16()
	h.Write(b[:])
	return int(mix(h.Sum64()) % 1000)
}

// mix spreads the low bits, which FNV leaves correlated for neighbouring blocks
// (finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// Cluster returns the cluster which serves, or false when the all-down rule answers.
func (c *Choice) Cluster() (ClusterID, bool) {
	if c.Head < 0 {
		return ClusterID{}, false
	}
	return c.Map.Clusters[c.Row.Candidates[c.Head].Cluster], true
}

// Addresses returns up to pick addresses of one family of the serving cluster,
// in an order that is stable for the client's block and differs between blocks.
func (s *Snapshot) Addresses(c *Choice, client netip.Addr, ipv6 bool, pick int) []netip.AddrPort {
	id, ok := c.Cluster()
	if !ok {
		return nil
	}
	cl := s.Inventory.Cluster(id)
	if cl == nil {
		return nil
	}
	var all []netip.AddrPort
	for _, a := range cl.Addresses {
		if a.Addr().Is6() == ipv6 {
			all = append(all, a)
		}
	}
	if len(all) > pick {
		all = rotate(all, c.rotation(client, len(all)))[:pick]
	}
	return all
}

// rotation starts each scope at an address of its own.
func (c *Choice) rotation(client netip.Addr, n int) int {
	block := c.Scope
	if !block.IsValid() {
		return 0
	}
	b := block.Masked().Addr().As16()
	x := binary.BigEndian.Uint64(b[:8]) ^ binary.BigEndian.Uint64(b[8:]) ^ uint64(block.Bits())
	return int(mix(x) % uint64(n))
}

func rotate[T any](in []T, by int) []T {
	out := make([]T, 0, len(in))
	return append(append(out, in[by:]...), in[:by]...)
}

// NameServers returns the clusters of a referral: the nearest usable ones, one a
// site, pick in all, and at least one outside the fate of the first. Where fewer
// than two are usable the unusable ones fill up, nearest first, since a set must
// never shrink to one.
func (s *Snapshot) NameServers(c *Choice, pick int) []ClusterID {
	pick = max(pick, 2)
	var out []ClusterID
	for _, usable := range []bool{true, false} {
		for _, cand := range c.Row.Candidates {
			id := c.Map.Clusters[cand.Cluster]
			if cand.Out.Usable() != usable || hasSite(out, id.Site) || (!usable && len(out) >= 2) {
				continue
			}
			if len(out) < pick {
				out = append(out, id)
			} else if usable && s.oneFate(out) && s.Inventory.fate(id) != s.Inventory.fate(out[0]) {
				out[len(out)-1] = id
			}
		}
	}
	return out
}

func (s *Snapshot) oneFate(ids []ClusterID) bool {
	for _, id := range ids {
		if s.Inventory.fate(id) != s.Inventory.fate(ids[0]) {
			return false
		}
	}
	return true
}

func hasSite(ids []ClusterID, site string) bool {
	for _, id := range ids {
		if id.Site == site {
			return true
		}
	}
	return false
}
