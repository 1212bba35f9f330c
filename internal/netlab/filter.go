package netlab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// filterTable is the nftables table of the lab's faults in each host.
const filterTable = "netlab_faults"

// setFilter replaces what the host drops, in one transaction of the kernel.
func (h *Host) setFilter(f filter) error {
	err := h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable}
		c.AddTable(table) // so that deleting it cannot fail
		c.DelTable(table)
		if len(f.ifs) > 0 || len(f.holes) > 0 {
			c.AddTable(table)
			if err := f.write(c, table); err != nil {
				return err
			}
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("netlab: filter of %s: %w", h.Name, err)
	}
	return nil
}

// write adds two chains, for what comes in and what is made here, ahead of
// connection tracking and of everybody else's rules.
func (f filter) write(c *nftables.Conn, table *nftables.Table) error {
	chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
		return c.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityRaw,
		})
	}
	in := chain("in", nftables.ChainHookPrerouting)
	out := chain("out", nftables.ChainHookOutput)
	rule := func(chain *nftables.Chain, exprs ...expr.Any) {
		exprs = append(exprs, &expr.Verdict{Kind: expr.VerdictDrop})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	for _, name := range sortedKeys(f.ifs) {
		rule(in, append(fromInterface(name), chance(f.ifs[name])...)...)
	}
	for _, family := range []addressFamily{familyV4(), familyV6()} {
		set, err := family.holes(c, table, f.holes)
		if err != nil {
			return err
		}
		if set == nil {
			continue
		}
		for _, chain := range []*nftables.Chain{in, out} {
			rule(chain, family.match(family.source, set)...)
			rule(chain, family.match(family.destination, set)...)
		}
	}
	return nil
}

// sortedKeys orders interfaces, so that equal faults make equal rule sets.
func sortedKeys(m map[string]float64) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// fromInterface matches packets that came in by an interface.
func fromInterface(name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

// chanceSteps is the resolution of a share of packets.
const chanceSteps = 100000

// chance matches a share of packets by a random number below chanceSteps. The
// kernel draws it in host order; comparing magnitudes needs network order.
func chance(share float64) []expr.Any {
	if share >= 1 {
		return nil
	}
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: chanceSteps, Type: unix.NFT_NG_RANDOM},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(uint32(share * chanceSteps))},
	}
}

// addressFamily says where addresses stand in a packet.
type addressFamily struct {
	protocol            byte
	keyType             nftables.SetDatatype
	source, destination uint32 // offsets in the network header
	size                uint32
	is                  func(netip.Addr) bool
}

// familyV4 places the addresses of an IPv4 header, RFC 791 section 3.1.
func familyV4() addressFamily {
	return addressFamily{unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16, 4, netip.Addr.Is4}
}

// familyV6 places the addresses of an IPv6 header, RFC 8200 section 3.
func familyV6() addressFamily {
	return addressFamily{unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24, 16, netip.Addr.Is6}
}

// holes makes the set of this family's prefixes; nil when there are none.
func (a addressFamily) holes(c *nftables.Conn, table *nftables.Table, prefixes []netip.Prefix) (*nftables.Set, error) {
	var elements []nftables.SetElement
	for _, p := range prefixes {
		if !a.is(p.Addr()) {
			continue
		}
		elements = append(elements, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := afterPrefix(p); end != nil { // a prefix to the end of the space has no end
			elements = append(elements, nftables.SetElement{Key: end, IntervalEnd: true})
		}
	}
	if elements == nil {
		return nil, nil
	}
	set := &nftables.Set{Table: table, Name: fmt.Sprintf("holes%d", 8*a.size), KeyType: a.keyType, Interval: true}
	return set, c.AddSet(set, elements)
}

// afterPrefix is the first address behind p, nil when p reaches to the end.
func afterPrefix(p netip.Prefix) []byte {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		bits := min(max(8*(i+1)-p.Bits(), 0), 8)
		b[i] |= byte(1<<bits - 1)
	}
	last, _ := netip.AddrFromSlice(b)
	next := last.Next()
	if !next.IsValid() {
		return nil
	}
	return next.AsSlice()
}

// match matches packets of the family whose address at offset is in the set.
func (a addressFamily) match(offset uint32, set *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{a.protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: a.size},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}
