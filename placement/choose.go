package placement

import (
	"encoding/binary"
	"net/netip"
)

// Choice is which clusters serve one client of a service. It points into its
// Snapshot and is valid for as long as that one is held; a value for one
// goroutine.
type Choice struct {
	Map *ServiceMap
	// Row is the decision for the client's class, never nil.
	Row *Row
	// Head is the index into Row.Candidates of the cluster that serves; -1 when
	// the policy's all-down rule answers.
	Head int
	// Class of the client, and Match, the prefix that says so; NoClass and the
	// zero Prefix where nothing is known of the client. Match may be longer than
	// Scope: neighbours of other classes often get the same answer.
	Class uint16
	Match netip.Prefix
	// Scope is the largest aligned client block that gets this same choice;
	// such blocks partition the space, so answers may be cached by scope in any order.
	Scope netip.Prefix
}

// The blocks, in bits, among which the clients of one class are divided. Finer
// ones would make an answer per /24 of every resolver's cache (RFC 7871, 7.3).
// They are the same as in placement/lpm, whose scopes of split classes never
// exceed them: a larger one would promise many answers as one.
const (
	SplitBits4 = 20
	SplitBits6 = 40
)

// Choose decides which cluster serves a client of a service. DNS answers,
// explain and simulate all call it, so that what is explained is what is done; a
// nil Trace costs nothing. ok is false when there is no such service in the
// snapshot. It is called for every steered query: it takes no lock, and nothing
// on its way allocates.
//
// The choice is a function of Snapshot, service and client alone: every node
// gives one client one answer, whichever of them the resolver happens to ask.
func (s *Snapshot) Choose(service string, client netip.Addr, tr *Trace) (c Choice, ok bool) {
	m := s.Map(service)
	if m == nil || len(m.Rows) == 0 {
		return Choice{}, false
	}
	client = client.Unmap()
	c.Map, c.Head = m, -1
	c.place(s.Classes, client)
	c.Row = m.row(c.Class)
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

// place fills in where the client is. The blocks are those of the class table, so one
// search does for both.
func (c *Choice) place(classes *ClassTable, client netip.Addr) {
	if c.Map.Blocks == nil {
		c.Class, c.Match = classes.Class(client)
		return
	}
	var known bool
	if c.Class, c.Match, c.Scope, known = c.Map.Blocks.Lookup(client); !known {
		c.Class = NoClass
	}
}

// row returns the decision for a class. The last row is for NoClass, and for
// classes which a newer table has and this map does not know.
func (m *ServiceMap) row(class uint16) *Row {
	if int(class) < len(m.Rows)-1 {
		return m.Rows[class]
	}
	return m.Rows[len(m.Rows)-1]
}

// head returns the candidate to whose share a hash in 0..999 belongs. Shares are
// cumulative: a weight that changes moves only the clients at its two edges.
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
	seed := splitSeed(service, client)
	if seed == 0 { // of no address
		return 0
	}
	return int(mix(seed) % 1000)
}

// splitBlock is the block of clients which a split keeps together; the zero
// Prefix for the zero Addr.
func splitBlock(client netip.Addr) netip.Prefix {
	bits := SplitBits4
	if client.Is6() {
		bits = SplitBits6
	}
	block, err := client.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return block
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

// Addresses returns up to pick addresses of one family of the serving cluster.
// Which one comes first is the same for the whole Scope, so that an answer may be
// cached for it, and differs between scopes, since most clients try the first
// address alone and the servers of a cluster would else share nothing. Where the policy
// makes answers of several clusters it is one address of each, whatever pick says.
func (s *Snapshot) Addresses(c *Choice, client netip.Addr, ipv6 bool, pick int) []netip.AddrPort {
	id, ok := c.Cluster()
	if !ok {
		return nil
	}
	if c.Map.Policy.Answers.Set() {
		return s.several(c, client, ipv6)
	}
	all := s.Inventory.Addresses(id, ipv6)
	return Rotated(all, c.Rotation(client, len(all)), pick)
}

// Addresses returns all addresses of one family of a cluster, in order.
func (in *Inventory) Addresses(id ClusterID, ipv6 bool) []netip.AddrPort {
	cl := in.Cluster(id)
	if cl == nil {
		return nil
	}
	var all []netip.AddrPort
	for _, a := range cl.Addresses {
		if a.Addr().Is6() == ipv6 {
			all = append(all, a)
		}
	}
	return all
}

// Rotated returns up to pick elements, beginning with the one at a place.
func Rotated[T any](in []T, by, pick int) []T {
	if by != 0 {
		in = append(append(make([]T, 0, len(in)), in[by:]...), in[:by]...)
	}
	return in[:min(len(in), max(pick, 0))]
}

// Rotation is the place of the address that comes first, below n. Without a
// scope the block counts by which clients are divided.
func (c *Choice) Rotation(client netip.Addr, n int) int {
	block := c.Scope
	if !block.IsValid() {
		block = splitBlock(client)
	}
	if n < 2 || !block.IsValid() {
		return 0
	}
	b := block.Masked().Addr().As16()
	x := binary.BigEndian.Uint64(b[:8]) ^ binary.BigEndian.Uint64(b[8:]) ^ uint64(block.Bits())
	return int(mix(x) % uint64(n))
}
