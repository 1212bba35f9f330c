package forward

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

const (
	// flowsName names the set of QUIC flows known to this host.
	flowsName = "flows"
	// maxFlows bounds it: some 50 MB. Flows beyond it are asked about.
	maxFlows = 1 << 18
)

// quicTable is what a family's table has for QUIC: sets of VIPs by how owners
// are found and by mode, and the chains that know the other sites' ids.
type quicTable struct {
	flowAct, flowWatch *nftables.Set
	idAct, idWatch     *nftables.Set
	// learn holds VIPs whose flows nobody has seen begin, once, for as long as
	// an idle connection lives: until then all flows are taken for ours.
	learn *nftables.Set

	judgeFlowAct, judgeFlowWatch *nftables.Chain
	judgeIDAct, judgeIDWatch     *nftables.Chain
	// idsAct and idsWatch know the other sites' ids; they are replaced whole.
	idsAct, idsWatch idChain
}

// idChain sends packets with another site's id to a chain.
type idChain struct{ chain, stray *nftables.Chain }

// addQUIC queues the sets and chains for QUIC. A server's UDP socket is
// unconnected, so the kernel can't tell which flows it serves: a set does.
func (b *builder) addQUIC(stray, seen *nftables.Chain, idle time.Duration) quicTable {
	flows := b.flowSet(flowsName, idle, maxFlows)
	q := quicTable{
		flowAct: b.vipSet("quic_act", elementLife), flowWatch: b.vipSet("quic_watch", elementLife),
		idAct: b.vipSet("cid_act", elementLife), idWatch: b.vipSet("cid_watch", elementLife),
		learn:    b.vipSet("learn", idle),
		idsAct:   idChain{b.chain("ids_act"), stray},
		idsWatch: idChain{b.chain("ids_watch"), seen},
	}
	begins := b.chain("begins")
	b.rule(begins, b.flowKey(), remember(flows))
	b.rule(begins, verdict(expr.VerdictAccept))
	q.judgeFlowAct = b.addFlowJudge("flow_act", flows, q.learn, begins, stray)
	q.judgeFlowWatch = b.addFlowJudge("flow_watch", flows, q.learn, begins, seen)
	q.judgeIDAct = b.addIDJudge("cid_act_judge", q.idsAct.chain)
	q.judgeIDWatch = b.addIDJudge("cid_watch_judge", q.idsWatch.chain)
	return q
}

// addFlowJudge tells a stray by the flow. The order matters:
//
//   - What the forwarder gave back is the kernel's. It isn't remembered: an
//     owner that is only slow may still be found.
//   - What came by tunnel is ours: the forwarder has looked.
//   - While flows are being learnt each is ours, as is each known one and each
//     that begins.
func (b *builder) addFlowJudge(name string, flows, learn *nftables.Set, begins, stray *nftables.Chain) *nftables.Chain {
	judge := b.chain(name)
	b.rule(judge, fromDevice(giveBackDevice), verdict(expr.VerdictAccept))
	b.rule(judge, fromDevice(straysDevice), jumpTo(begins))
	b.rule(judge, fromDevice("lo"), verdict(expr.VerdictAccept))
	b.rule(judge, b.flowKey(), inSet(flows), remember(flows), verdict(expr.VerdictAccept))
	b.rule(judge, b.vipMatch(protoUDP, learn, true), jumpTo(begins))
	for _, known := range []struct {
		version uint32
		initial byte
	}{{quicV1, initialV1}, {quicV2, initialV2}} {
		version := binary.BigEndian.AppendUint32(nil, known.version)
		b.rule(judge, quicBits(quicLong|quicType, quicLong|known.initial), fieldIs(quicField(1, 4), expr.CmpOpEq, version...), jumpTo(begins))
		b.rule(judge, fieldIs(quicField(1, 4), expr.CmpOpEq, version...), jumpTo(stray))
	}
	b.rule(judge, quicBits(quicLong, quicLong), jumpTo(begins))
	b.rule(judge, jumpTo(stray))
	return judge
}

// addIDJudge tells a stray by its connection id, which names its site.
func (b *builder) addIDJudge(name string, ids *nftables.Chain) *nftables.Chain {
	judge := b.chain(name)
	for _, device := range []string{giveBackDevice, straysDevice, "lo"} {
		b.rule(judge, fromDevice(device), verdict(expr.VerdictAccept))
	}
	b.rule(judge, jumpTo(ids))
	return judge
}

// enter leads QUIC packets to their judges.
func (q *quicTable) enter(b *builder, pre *nftables.Chain) {
	b.rule(pre, b.vipMatch(protoUDP, q.flowAct, true), jumpTo(q.judgeFlowAct))
	b.rule(pre, b.vipMatch(protoUDP, q.flowWatch, true), jumpTo(q.judgeFlowWatch))
	b.rule(pre, b.vipMatch(protoUDP, q.idAct, true), jumpTo(q.judgeIDAct))
	b.rule(pre, b.vipMatch(protoUDP, q.idWatch, true), jumpTo(q.judgeIDWatch))
}

// quicField is a part of the UDP payload.
func quicField(at, of uint32) field { return transport(udpHeader+at, of) }

// quicBits compares bits of a QUIC packet's first octet.
func quicBits(mask, want byte) []expr.Any { return bitsAre(quicField(0, 1), mask, expr.CmpOpEq, want) }

// fillings splits the VIPs of QUIC by owner and mode.
func (q *quicTable) fillings(w wanted) []filling {
	sets := map[QUICVIP]*filling{
		{Act, ByFlow}: {set: q.flowAct}, {Observe, ByFlow}: {set: q.flowWatch},
		{Act, ByConnectionID}: {set: q.idAct}, {Observe, ByConnectionID}: {set: q.idWatch},
	}
	for vip, v := range w.quic.VIPs {
		f := sets[v]
		f.vips = append(f.vips, vip)
	}
	return []filling{*sets[QUICVIP{Act, ByFlow}], *sets[QUICVIP{Observe, ByFlow}],
		*sets[QUICVIP{Act, ByConnectionID}], *sets[QUICVIP{Observe, ByConnectionID}]}
}

// unlearnt are the VIPs, of both families, whose flows nobody has seen begin.
func (r *rules) unlearnt(w wanted) []netip.AddrPort {
	var list []netip.AddrPort
	for vip, v := range w.quic.VIPs {
		if v.Owner == ByFlow && !r.learning[vip] {
			list = append(list, vip)
		}
	}
	return list
}

// idsOf names the ids that the rules shall know, as one text. One that is no
// site's ends in itself.
func (r *rules) idsOf(w wanted) string {
	var b strings.Builder
	for _, site := range slices.Sorted(maps.Keys(w.quic.ServerIDs)) {
		if site != w.self {
			fmt.Fprintf(&b, "%x ", w.quic.ServerIDs[site])
		}
	}
	return b.String()
}

// replaceIDs queues the rules that find the other sites' ids.
func (t *familyTable) replaceIDs(conn *nftables.Conn, w wanted) {
	b := &builder{conn: conn, table: t.table, v6: t.v6}
	for _, c := range []idChain{t.quic.idsAct, t.quic.idsWatch} {
		conn.FlushChain(c.chain)
		for _, site := range slices.Sorted(maps.Keys(w.quic.ServerIDs)) {
			if site != w.self {
				b.addID(c, w.quic.ServerIDs[site])
			}
		}
	}
}

// addID finds one id: behind the first octet of a short header's connection
// id, or of a long header's, which tells its length before.
func (b *builder) addID(c idChain, id []byte) {
	size := uint32(len(id))
	server := func(cid uint32) []expr.Any {
		return append(bitsAre(quicField(cid, 1), noServer<<5, expr.CmpOpNeq, noServer<<5), fieldIs(quicField(cid+1, size), expr.CmpOpEq, id...)...)
	}
	b.rule(c.chain, quicBits(quicLong, 0), server(1), jumpTo(c.stray))
	b.rule(c.chain, quicBits(quicLong, quicLong), fieldIs(quicField(5, 1), expr.CmpOpGte, byte(size+1)), server(6), jumpTo(c.stray))
}
