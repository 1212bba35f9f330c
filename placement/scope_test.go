package placement

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"rhumb/placement/lpm"
)

// someMap is a snapshot with random classes of both families, and a service
// whose rows are random; its scopes are folded as the unfolding of a plan does it:
// a label for each decision, at or above SplitBase where clients are divided.
func someMap(t *testing.T, r *rand.Rand) *Snapshot {
	t.Helper()
	const classes = 12
	entries := []lpm.Entry{}
	for range 60 {
		p := netip.PrefixFrom(someAddr(r), 0)
		bits := 8 + r.IntN(22)
		if p.Addr().Is6() {
			bits = 20 + r.IntN(44)
		}
		entries = append(entries, lpm.Entry{Prefix: netip.PrefixFrom(p.Addr(), bits).Masked(), Value: uint16(r.IntN(classes))})
	}
	table, err := lpm.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	inv := &Inventory{}
	m := ServiceMap{Service: &Service{Name: "www"}, Policy: &Policy{Pick: 2}}
	for i := range 3 {
		s := Site{Name: fmt.Sprintf("s%d", i), Clusters: []Cluster{{Name: "web"}}}
		for k := range 1 + r.IntN(4) {
			s.Clusters[0].Addresses = append(s.Clusters[0].Addresses, netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:80", 16*i+k)))
		}
		inv.Sites = append(inv.Sites, s)
		m.Clusters = append(m.Clusters, ClusterID{s.Name, "web"})
	}
	labels := make([]uint32, classes+1)
	kinds := []*Row{
		{Candidates: candidates(In, OutFarther, OutFarther), Shares: []Share{{0, 1000}}},
		{Candidates: candidates(OutFarther, In, OutFarther), Shares: []Share{{1, 1000}}},
		{Candidates: candidates(In, In, OutFarther), Shares: []Share{{0, 500}, {1, 1000}}},
		{Candidates: candidates(OutDown, OutDown, OutDown)},
	}
	for i := range labels {
		k := r.IntN(len(kinds))
		m.Rows = append(m.Rows, kinds[k])
		labels[i] = uint32(k)
		if len(kinds[k].Shares) > 1 {
			labels[i] += lpm.SplitBase
		}
	}
	m.Blocks = table.Fold(labels[:classes], labels[classes])
	return &Snapshot{Inventory: inv, Plan: &Plan{}, Maps: []ServiceMap{m},
		Classes: &ClassTable{Prefixes: table, Locations: make([]Location, classes)}}
}

func someAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(256))})
	}
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(256))}
	b[15] = byte(r.IntN(256))
	return netip.AddrFrom16(b)
}

// inside returns a random address of a block.
func inside(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	first := p.Bits()
	if p.Addr().Is4() {
		first += 96
	}
	for i := first; i < 128; i++ {
		b[i/8] |= byte(r.IntN(2)) << (7 - i%8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

// TestScopesPartition: the scopes of two clients are one or do not overlap, and
// whoever is in a scope gets the same cluster and addresses (RFC 7871, 7.3: an
// answer is used again for everybody in its scope).
func TestScopesPartition(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 20 {
		s := someMap(t, r)
		scopes := make(map[netip.Prefix]bool)
		for range 300 {
			client := someAddr(r)
			c, ok := s.Choose("www", client, nil)
			if !ok || !c.Scope.Contains(client) {
				t.Fatalf("%v is not in its scope %v", client, c.Scope)
			}
			scopes[c.Scope] = true
			other := inside(r, c.Scope)
			o, _ := s.Choose("www", other, nil)
			a, b := s.Addresses(&c, client, false, 2), s.Addresses(&o, other, false, 2)
			if o.Scope != c.Scope || o.Head != c.Head || fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("%v gets %v, %v of its scope %v gets %v (scope %v)", client, a, other, c.Scope, b, o.Scope)
			}
		}
		for p := range scopes {
			for q := range scopes {
				if p != q && p.Overlaps(q) {
					t.Fatalf("scopes %v and %v overlap", p, q)
				}
			}
		}
	}
}

// TestSplitBlocksFitScopes: a scope of a split class holds whole blocks of the hash.
func TestSplitBlocksFitScopes(t *testing.T) {
	table, err := lpm.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	blocks := table.Fold(nil, lpm.SplitBase)
	for client, bits := range map[string]int{"192.0.2.1": SplitBits4, "2001:db8::1": SplitBits6} {
		if b := blocks.Block(netip.MustParseAddr(client)); b.Bits() != bits {
			t.Errorf("the scope of %s is %v, clients are divided by /%d", client, b, bits)
		}
	}
}

// TestMappedClient: a client which comes in as ::ffff:a.b.c.d is the IPv4 one.
func TestMappedClient(t *testing.T) {
	s := world(t, split(), single())
	plain, _ := s.Choose("www", netip.MustParseAddr("10.0.3.4"), nil)
	mapped, _ := s.Choose("www", netip.MustParseAddr("::ffff:10.0.3.4"), nil)
	if plain != mapped {
		t.Errorf("%+v and %+v", plain, mapped)
	}
}

// TestAddressesOfFew: with as many addresses as are picked, or fewer, all are
// given, each comes first for some clients, and none is lost by a pick beyond.
func TestAddressesOfFew(t *testing.T) {
	s := world(t, split(), single())
	first := make(map[netip.AddrPort]bool)
	for i := range 64 {
		client := netip.AddrFrom4([4]byte{10, 0, byte(i * 4), 9})
		c, _ := s.Choose("www", client, nil)
		got := s.Addresses(&c, client, false, 8)
		seen := make(map[netip.AddrPort]bool)
		for _, a := range got {
			seen[a] = true
		}
		if len(got) != 4 || len(seen) != 4 {
			t.Fatalf("%v gets %v", client, got)
		}
		first[got[0]] = true
	}
	if len(first) < 6 {
		t.Errorf("of the 8 addresses of two clusters only %d ever come first", len(first))
	}
	c, _ := s.Choose("www", netip.MustParseAddr("10.0.3.4"), nil)
	for _, pick := range []int{0, -1} {
		if got := s.Addresses(&c, netip.MustParseAddr("10.0.3.4"), false, pick); len(got) != 0 {
			t.Errorf("pick %d gives %v", pick, got)
		}
	}
}

// TestAddressesWithoutScopes: clients of one hashed block see one order.
func TestAddressesWithoutScopes(t *testing.T) {
	s := world(t, single(), single())
	s.Maps[0].Blocks = nil
	first := make(map[netip.AddrPort]bool)
	for i := range 16 {
		a, b := netip.AddrFrom4([4]byte{10, 0, byte(i << 4), 9}), netip.AddrFrom4([4]byte{10, 0, byte(i<<4 | 15), 200})
		ca, _ := s.Choose("www", a, nil)
		cb, _ := s.Choose("www", b, nil)
		x, y := s.Addresses(&ca, a, false, 4), s.Addresses(&cb, b, false, 4)
		if fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatalf("%v gets %v, %v of the same block %v", a, x, b, y)
		}
		first[x[0]] = true
	}
	if len(first) < 3 {
		t.Errorf("only %d of 4 addresses ever come first", len(first))
	}
}
