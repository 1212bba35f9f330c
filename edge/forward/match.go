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

// isTCP must stand before every match on the TCP header.
func isTCP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{protoTCP}},
	}
}

// vipMatch finds packets to a VIP of the set, or from one.
func (b *builder) vipMatch(set *nftables.Set, to bool) []expr.Any {
	addr := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	port := &expr.Payload{DestRegister: behindIPv4, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	if b.v6 {
		addr.Offset, addr.Len, port.DestRegister = 8, 16, reg2
	}
	if to {
		addr.Offset += addr.Len
		port.Offset = 2
	}
	return append(isTCP(), addr, port,
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
	return append(isTCP(),
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
