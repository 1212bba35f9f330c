package forward

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The matches and statements that our rules are made of, each as the list of
// expressions which the kernel runs. Register 1 overlays the 4-octet registers
// 8 to 11, register 2 begins at 12.
const (
	reg1 = uint32(unix.NFT_REG_1)
	reg2 = uint32(unix.NFT_REG_2)
	// behindIPv4 is the 4-octet register behind an IPv4 address in reg1.
	behindIPv4 = uint32(unix.NFT_REG32_01)
)

// The flags of a TCP header's octet 13 (RFC 9293 section 3.1).
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10

	synAck = flagSYN | flagACK
	finRst = flagFIN | flagRST
)

// dupGateway4 and dupGateway6 are the next hops on the strays device to which
// dup sends its copies. Nobody answers there: addresses for benchmarking (RFC
// 2544) and of the link, which no host routes elsewhere.
func dupGateway4() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, 2}) }
func dupGateway6() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 2}) }

// counted counts packets and octets, for whoever lists the rules.
func counted() []expr.Any { return []expr.Any{&expr.Counter{}} }

// verdict ends the rule.
func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// jumpTo goes to a chain and doesn't come back.
func jumpTo(c *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
}

// isProto must stand before every match on a transport header.
func isProto(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{proto}},
	}
}

// vipMatch finds packets to a VIP of the set, or from one.
func (b *builder) vipMatch(proto byte, set *nftables.Set, to bool) []expr.Any {
	addr := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	port := &expr.Payload{DestRegister: behindIPv4, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	if b.v6 {
		addr.Offset, addr.Len, port.DestRegister = 8, 16, reg2
	}
	if to {
		addr.Offset += addr.Len
		port.Offset = 2
	}
	return append(isProto(proto), addr, port,
		&expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID})
}

// fromDevice matches the incoming device by name, so that the rule doesn't
// depend on when the device was made.
func fromDevice(name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: padded},
	}
}

// flagsAre matches TCP packets whose flags, under mask, are want.
func flagsAre(mask, want byte) []expr.Any {
	return append(isProto(protoTCP),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{want}})
}

// socketIs compares a property of the socket which the packet would reach. It
// doesn't match when there is no such socket, or when it lacks the property.
func socketIs(key expr.SocketKey, op expr.CmpOp, value byte) []expr.Any {
	return []expr.Any{
		&expr.Socket{Key: key, Register: reg1},
		&expr.Cmp{Op: op, Register: reg1, Data: []byte{value}},
	}
}

// dupTo copies the packet to the device with this index.
func dupTo(device uint32, v6 bool) []expr.Any {
	gateway := dupGateway4().AsSlice()
	if v6 {
		gateway = dupGateway6().AsSlice()
	}
	return []expr.Any{
		&expr.Immediate{Register: reg1, Data: gateway},
		&expr.Immediate{Register: reg2, Data: binaryutil.NativeEndian.PutUint32(device)},
		&expr.Dup{RegAddr: reg1, RegDev: reg2, IsRegDevSet: true},
	}
}

// setMSS lowers the maximum segment size option (RFC 9293 section 3.2, kind
// 2); the kernel never raises one.
func setMSS(size uint16) []expr.Any {
	const optionMSS = 2
	return []expr.Any{
		&expr.Immediate{Register: reg1, Data: binary.BigEndian.AppendUint16(nil, size)},
		&expr.Exthdr{SourceRegister: reg1, Type: optionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	}
}

// A field is a part of a header: where it begins, in octets behind the base.
type field struct {
	base   expr.PayloadBase
	at, of uint32
}

func transport(at, of uint32) field { return field{expr.PayloadBaseTransportHeader, at, of} }
func internet(at, of uint32) field  { return field{expr.PayloadBaseNetworkHeader, at, of} }

// load reads fields into registers one behind the other, each from a 4-octet
// register on, as the key of a set has them.
func load(fields ...field) []expr.Any {
	var list []expr.Any
	at := uint32(0)
	for _, f := range fields {
		register := reg1
		if at > 0 {
			register = uint32(unix.NFT_REG32_00) + at
		}
		list = append(list, &expr.Payload{DestRegister: register, Base: f.base, Offset: f.at, Len: f.of})
		at += (f.of + 3) / 4
	}
	return list
}

// fieldIs compares a field with a value; the packet must be long enough.
func fieldIs(f field, op expr.CmpOp, value ...byte) []expr.Any {
	return append(load(f), &expr.Cmp{Op: op, Register: reg1, Data: value})
}

// bitsAre compares some bits of an octet.
func bitsAre(f field, mask byte, op expr.CmpOp, want byte) []expr.Any {
	return append(load(f),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: reg1, Data: []byte{want}})
}

// inSet looks up what was loaded.
func inSet(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID}}
}

// remember adds what was loaded to a set, or renews it there. Where the set is
// full the rule ends here.
func remember(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Dynset{SrcRegKey: reg1, SetName: set.Name, SetID: set.ID,
		Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: set.Timeout}}
}

// flowKey is the key of a packet from client to server in a set of flows.
func (b *builder) flowKey() []expr.Any {
	if b.v6 {
		return load(internet(8, 16), transport(0, 2), internet(24, 16), transport(2, 2))
	}
	return load(internet(12, 4), transport(0, 2), internet(16, 4), transport(2, 2))
}

// quotedKey is the same key, read from the packet which an ICMP error quotes: it
// travelled from server to client.
func (b *builder) quotedKey() []expr.Any {
	const q = icmpHeader
	if b.v6 {
		return load(transport(q+24, 16), transport(q+42, 2), transport(q+8, 16), transport(q+40, 2))
	}
	return load(transport(q+16, 4), transport(q+22, 2), transport(q+12, 4), transport(q+20, 2))
}

// quotedVIP finds ICMP errors that quote a packet from a VIP of the set. An IP
// header with options or extensions isn't found: our servers send none.
func (b *builder) quotedVIP(proto byte, set *nftables.Set) []expr.Any {
	const q = icmpHeader
	if b.v6 {
		match := fieldIs(transport(q+6, 1), expr.CmpOpEq, proto)
		return append(append(match, load(transport(q+8, 16), transport(q+40, 2))...), inSet(set)...)
	}
	match := append(fieldIs(transport(q, 1), expr.CmpOpEq, 0x45), fieldIs(transport(q+9, 1), expr.CmpOpEq, proto)...)
	return append(append(match, load(transport(q+12, 4), transport(q+20, 2))...), inSet(set)...)
}
