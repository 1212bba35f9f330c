package vip

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The rules are written as the expressions that the kernel runs, since nothing but the
// kernel is needed to load them: no program that parses rules has to be there.

// builder queues the sets, chains and rules of one table.
type builder struct {
	conn       *nftables.Conn
	table      *nftables.Table
	v6         bool
	ours, open *nftables.Set
}

const (
	reg1 = uint32(unix.NFT_REG_1)
	// metaTime is the time of day in ns (NFT_META_TIME_NS, Linux 5.4), which the
	// library has no name for.
	metaTime  = expr.MetaKey(30)
	timeBytes = 8

	// The hooks of ARP (linux/netfilter_arp.h).
	hookARPIn, hookARPOut = 0, 1
)

// Types of ICMPv6 (RFC 4861 section 4).
const (
	typeSolicitation  = 135
	typeAdvertisement = 136
)

// addSets queues the addresses, and the permissions for them.
func (b *builder) addSets(addrs []netip.Addr) {
	kind := nftables.TypeIPAddr
	if b.v6 {
		kind = nftables.TypeIP6Addr
	}
	var elements []nftables.SetElement
	for _, a := range addrs {
		if a.Is6() == b.v6 {
			elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	b.ours = &nftables.Set{Table: b.table, Name: "ours", KeyType: kind}
	b.open = &nftables.Set{Table: b.table, Name: "open", HasTimeout: true,
		KeyType: nftables.MustConcatSetType(kind, nftables.TypeTimeDate)}
	_ = b.conn.AddSet(b.ours, elements) // both fail for maps and anonymous sets only
	_ = b.conn.AddSet(b.open, nil)
}

// base queues a chain at a hook. It accepts what no rule judges, which leaves
// the packet to the host's own rules.
func (b *builder) base(name string, hook int, device string) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return b.conn.AddChain(&nftables.Chain{Table: b.table, Name: name, Type: nftables.ChainTypeFilter, Device: device, Policy: &policy,
		Hooknum: nftables.ChainHookRef(nftables.ChainHook(hook)), Priority: nftables.ChainPriorityRef(fencePriority)})
}

// guard queues a judgement of packets in which a field, loaded to register 1, is one
// of our addresses: in time they pass, otherwise they are dropped.
func (b *builder) guard(base *nftables.Chain, name string, field []expr.Any) {
	judge := b.conn.AddChain(&nftables.Chain{Table: b.table, Name: name})
	load := field[len(field)-1:]
	b.rule(base, field, inSet(b.ours), []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: name}})
	b.rule(judge, load, b.slot(), inSet(b.open), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})
	b.rule(judge, []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})
}

// addInternet queues what the two internet protocols have in common: packets to and from
// the addresses. What stays on this host is nobody else's.
func (b *builder) addInternet(to, from []expr.Any) (in, out *nftables.Chain) {
	in = b.base("prerouting", unix.NF_INET_PRE_ROUTING, "")
	b.rule(in, loopback(expr.MetaKeyIIFNAME), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})
	b.guard(in, "arriving", to)
	out = b.base("output", unix.NF_INET_LOCAL_OUT, "")
	b.rule(out, loopback(expr.MetaKeyOIFNAME), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})
	b.guard(out, "leaving", from)
	return in, out
}

// rule queues a rule made of parts, each a match or a statement.
func (b *builder) rule(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: all})
}

// slot loads the present slot of the wall clock behind the address in register 1: the
// time with its low bits cleared, as the elements have it.
func (b *builder) slot() []expr.Any {
	behind := uint32(unix.NFT_REG32_01)
	if b.v6 {
		behind = unix.NFT_REG32_00 + 4
	}
	mask := binary.NativeEndian.AppendUint64(nil, ^uint64(1<<slotBits-1))
	return []expr.Any{
		&expr.Meta{Key: metaTime, Register: behind},
		&expr.Bitwise{SourceRegister: behind, DestRegister: behind, Len: timeBytes, Mask: mask, Xor: make([]byte, timeBytes)},
	}
}

// inSet looks up what was loaded from register 1 on.
func inSet(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID}}
}

// field loads a part of a header; a packet that is too short for it matches nothing.
func field(base expr.PayloadBase, at, size uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg1, Base: base, Offset: at, Len: size}}
}

// The fields that hold our addresses. Those of ARP for IPv4 over Ethernet (RFC 826): whose address
// it is about, and who says so.
func arpTarget() []expr.Any { return field(expr.PayloadBaseNetworkHeader, 24, 4) }
func arpSender() []expr.Any { return field(expr.PayloadBaseNetworkHeader, 14, 4) }

func source4() []expr.Any      { return field(expr.PayloadBaseNetworkHeader, 12, 4) }
func destination4() []expr.Any { return field(expr.PayloadBaseNetworkHeader, 16, 4) }
func source6() []expr.Any      { return field(expr.PayloadBaseNetworkHeader, 8, 16) }
func destination6() []expr.Any { return field(expr.PayloadBaseNetworkHeader, 24, 16) }

// ndTarget is the target of a neighbour solicitation or advertisement (RFC 4861
// sections 4.3 and 4.4).
func ndTarget() []expr.Any { return field(expr.PayloadBaseTransportHeader, 8, 16) }

// isARP must stand before a field of ARP where all kinds of frames pass.
func isARP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.BigEndian.PutUint16(unix.ETH_P_ARP)},
	}
}

// isICMPv6 must stand before a field of a message of one type.
func isICMPv6(kind byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{kind}},
	}
}

// loopback matches what comes from, or goes to, this host itself: a check of our own
// server by its shared address is answered whoever owns it.
func loopback(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: name},
	}
}
