package forward

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// An ICMP error about a session comes to the site next to the router that sends
// it, which need not be the session's. The kernel's socket match reads the
// packet that the error quotes, so its owner is found as that of a packet from
// the client.

// addErrors queues the judges of ICMP errors, and returns the chain they begin
// with. In mode observe errors are the kernel's.
func (b *builder) addErrors(t *familyTable, inner, stray *nftables.Chain) *nftables.Chain {
	tcp, quic, errors := b.chain("error_tcp"), b.chain("error_quic"), b.chain("errors")
	b.rule(errors, fromDevice(giveBackDevice), verdict(expr.VerdictAccept))
	b.rule(errors, fromDevice("lo"), verdict(expr.VerdictAccept))
	b.rule(errors, b.quotedVIP(protoTCP, t.act), jumpTo(tcp))
	b.rule(errors, b.quotedVIP(protoUDP, t.quic.flowAct), jumpTo(quic))

	b.rule(tcp, fromDevice(straysDevice), jumpTo(inner))
	b.rule(tcp, socketIs(expr.SocketKeyWildcard, expr.CmpOpEq, 0), verdict(expr.VerdictAccept))
	b.addRest(tcp, stray)

	b.rule(quic, fromDevice(straysDevice), verdict(expr.VerdictAccept))
	flows := &nftables.Set{Table: b.table, Name: flowsName}
	b.rule(quic, b.quotedKey(), inSet(flows), verdict(expr.VerdictAccept))
	b.rule(quic, jumpTo(stray))
	return errors
}

// enterErrors leads the errors to their judges.
func (b *builder) enterErrors(pre, errors *nftables.Chain) {
	proto := byte(protoICMP)
	if b.v6 {
		proto = protoICMPv6
	}
	for _, kind := range icmpErrors(b.v6) {
		b.rule(pre, isProto(proto), fieldIs(transport(0, 1), expr.CmpOpEq, kind), jumpTo(errors))
	}
}
