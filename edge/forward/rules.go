package forward

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

const (
	// tableName names our nftables tables, one for IPv4 and one for IPv6:
	// the dup statement exists in these families, not in inet.
	tableName = "rhumb_forward"

	// priority is before raw (-300) and conntrack (-200), so a host's
	// "ct state invalid drop" never sees a stray, and behind the reassembly
	// of fragments (-400).
	priority = -310

	// elementLife is how long a VIP stays in its set unless renewed. The
	// rules judge only packets to a VIP in a set, so when the forwarder is
	// killed, or stands still that long, they judge nothing and the kernel
	// answers as if they weren't there.
	elementLife = 2 * time.Second
	renewEvery  = 500 * time.Millisecond

	// clampMSS limits what clients send us, so that their packets fit the
	// tunnel over a path of 1,500 octets in either family: 1,360 + 60
	// octets of IPv6 and TCP headers + 80 octets of tunnel = 1,500.
	clampMSS = 1360

	// synLife is how long after its SYN a handshake may end by a cookie, and
	// maxSYNs bounds what a flood makes us remember. What isn't remembered is
	// asked about.
	synLife = 10 * time.Second
	maxSYNs = 1 << 16
)

// rules is the kernel's half of the forwarder: one table for each family.
// Only the goroutine that renews may use it.
type rules struct {
	conn   *nftables.Conn
	strays uint32 // index of the strays device
	v6     bool
	idle   time.Duration // how long a QUIC flow is known
	tables []*familyTable

	renewed time.Time
	// learning are the VIPs whose flows are being, or were, learnt.
	learning map[netip.AddrPort]bool
	ids      string // the server ids in the rules, as text
}

// wanted is what the sets shall hold.
type wanted struct {
	vips    map[netip.AddrPort]Mode
	quic    *QUIC
	cookies bool   // the kernel answers SYNs with cookies
	self    string // this site
}

// familyTable is the table of one family with its sets of VIPs.
type familyTable struct {
	v6         bool
	table      *nftables.Table
	act, watch *nftables.Set // of TCP
	cookies    *nftables.Set
	quic       quicTable
}

// loadRules puts the tables into the kernel. The strays device must exist
// already: dup keeps the index of the device, not its name, and would copy to
// nowhere if that were made anew.
func loadRules(strays uint32, v6 bool, idle time.Duration) (*rules, error) {
	r := &rules{strays: strays, v6: v6, idle: idle}
	if err := r.load(); err != nil {
		return nil, err
	}
	return r, nil
}

// load makes the tables, in place of what an earlier forwarder left, on a new
// connection: an old one may have answers left in it.
func (r *rules) load() error {
	if r.conn != nil {
		_ = r.conn.CloseLasting()
	}
	var err error
	if r.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(roomForAcks)); err != nil {
		return fmt.Errorf("forward: open nftables: %w", err)
	}
	r.learning, r.ids, r.tables = make(map[netip.AddrPort]bool), "", nil
	for _, v6 := range []bool{false, true} {
		if v6 && !r.v6 {
			continue
		}
		// A batch each: the kernel acknowledges every message of one before
		// we read the first, and drops what doesn't fit.
		r.tables = append(r.tables, r.addFamily(v6))
		if err := r.conn.Flush(); err != nil {
			return fmt.Errorf("forward: load nftables rules (the kernel needs nft_socket and nft_dup): %w", err)
		}
	}
	return nil
}

// roomForAcks lets a socket hold the acknowledgements of a large batch.
func roomForAcks[T interface{ SetReadBuffer(int) error }](socket T) error {
	return socket.SetReadBuffer(4 << 20)
}

// keep renews the VIPs. If that fails, somebody has removed our tables, as a
// firewall does that flushes the ruleset to load its own: they are made anew.
func (r *rules) keep(now time.Time, w wanted) (again bool, err error) {
	if r.renew(now, w) == nil {
		return false, nil
	}
	if err := r.load(); err != nil {
		return true, err
	}
	return true, r.renew(now, w)
}

// renew makes the sets hold exactly these VIPs for the next elementLife.
// Adding an element that is there doesn't renew it, so a batch empties a set
// and fills it again; packets see the set before it or after it.
func (r *rules) renew(now time.Time, w wanted) error {
	if now.Sub(r.renewed) > elementLife {
		// We stood still, and connections began that nobody saw.
		clear(r.learning)
	}
	ids := r.idsOf(w)
	for _, t := range r.tables {
		for _, f := range append(t.fillings(w), t.quic.fillings(w)...) {
			r.conn.FlushSet(f.set)
			if err := r.conn.SetAddElements(f.set, t.elements(f.vips)); err != nil {
				return fmt.Errorf("forward: renew VIPs: %w", err)
			}
		}
		if err := r.conn.SetAddElements(t.quic.learn, t.elements(r.unlearnt(w))); err != nil {
			return fmt.Errorf("forward: renew VIPs: %w", err)
		}
		if ids != r.ids {
			t.replaceIDs(r.conn, w)
		}
		if err := r.conn.Flush(); err != nil {
			return fmt.Errorf("forward: renew VIPs: %w", err)
		}
	}
	for _, vip := range r.unlearnt(w) {
		r.learning[vip] = true
	}
	r.renewed, r.ids = now, ids
	return nil
}

// remove takes the tables away. Only flows being forwarded notice: the kernel
// resets them when their next packet comes.
func (r *rules) remove() error {
	for _, t := range r.tables {
		r.conn.DelTable(t.table)
	}
	err := r.conn.Flush()
	_ = r.conn.CloseLasting()
	if err != nil {
		return fmt.Errorf("forward: remove nftables rules: %w", err)
	}
	return nil
}

// filling is a set and what it shall hold.
type filling struct {
	set  *nftables.Set
	vips []netip.AddrPort
}

// fillings splits the VIPs of TCP by mode.
func (t *familyTable) fillings(w wanted) []filling {
	act, watch, cookies := filling{set: t.act}, filling{set: t.watch}, filling{set: t.cookies}
	for vip, mode := range w.vips {
		if mode == Act {
			act.vips = append(act.vips, vip)
		} else {
			watch.vips = append(watch.vips, vip)
		}
		if w.cookies {
			cookies.vips = append(cookies.vips, vip)
		}
	}
	return []filling{act, watch, cookies}
}

// elements are the keys of the VIPs of this family.
func (t *familyTable) elements(vips []netip.AddrPort) []nftables.SetElement {
	// In order, so that equal sets make equal batches.
	slices.SortFunc(vips, netip.AddrPort.Compare)
	var list []nftables.SetElement
	for _, vip := range vips {
		if vip.Addr().Is6() != t.v6 {
			continue
		}
		key := vip.Addr().AsSlice()
		key = binary.BigEndian.AppendUint16(key, vip.Port())
		key = append(key, 0, 0) // each part of a key is padded to 4 octets
		list = append(list, nftables.SetElement{Key: key})
	}
	return list
}

// addFamily queues one family's table:
//
//	prerouting  tcp to @act goto act; to @watch goto watch; QUIC; ICMP errors
//	act         what is new or has a socket here: accept; else goto stray
//	stray       dup to the strays device; drop
//	watch       as act, but a stray is copied and then left to the kernel
//	inner       what came by tunnel: to its socket, or dropped
//	output      SYN-ACK from @act: clamp the MSS
func (r *rules) addFamily(v6 bool) *familyTable {
	family := nftables.TableFamilyIPv4
	if v6 {
		family = nftables.TableFamilyIPv6
	}
	// One batch, so there is no moment with half a table.
	old := &nftables.Table{Family: family, Name: tableName}
	r.conn.AddTable(old) // so that the delete finds one
	r.conn.DelTable(old)
	t := &familyTable{v6: v6, table: r.conn.AddTable(&nftables.Table{Family: family, Name: tableName})}
	b := &builder{conn: r.conn, table: t.table, v6: v6}
	t.act, t.watch, t.cookies = b.vipSet("act", elementLife), b.vipSet("watch", elementLife), b.vipSet("cookies", elementLife)
	syns := b.flowSet("syns", synLife, maxSYNs)

	inner, stray, seen := b.chain("inner"), b.chain("stray"), b.chain("seen")
	b.addInner(inner)
	b.rule(stray, counted(), dupTo(r.strays, v6), verdict(expr.VerdictDrop))
	b.rule(seen, counted(), dupTo(r.strays, v6), verdict(expr.VerdictAccept))
	act, watch := b.chain("act"), b.chain("watch")
	b.addJudge(act, inner, stray, t.cookies, syns)
	b.addJudge(watch, inner, seen, t.cookies, syns)
	t.quic = b.addQUIC(stray, seen, r.idle)
	errors := b.addErrors(t, inner, stray)

	pre := b.base("prerouting", nftables.ChainHookPrerouting, priority)
	b.rule(pre, b.vipMatch(protoTCP, t.act, true), jumpTo(act))
	b.rule(pre, b.vipMatch(protoTCP, t.watch, true), jumpTo(watch))
	t.quic.enter(b, pre)
	b.enterErrors(pre, errors)
	out := b.base("output", nftables.ChainHookOutput, int(*nftables.ChainPriorityMangle))
	b.rule(out, b.vipMatch(protoTCP, t.act, false), flagsAre(synAck, synAck), setMSS(clampMSS))
	return t
}

// addJudge tells a stray from everything else. The order matters:
//
//   - What the forwarder gave back is the kernel's; what came by tunnel is
//     never tunnelled again; this host's own clients don't stray.
//   - A SYN is a new flow.
//   - "socket wildcard 0": established here. It is also true of a listener
//     bound to the VIP itself, which is why the server's listener must be a
//     wildcard: with a bound one nothing is ever a stray.
//   - "socket wildcard 1": only a listener, so the flow is foreign.
//   - Half-open connections and TIME_WAIT have no answer to "wildcard" of
//     either value, but are sockets: "transparent" finds them.
//   - Nothing at all, not even a listener: foreign too.
//
// While the kernel answers SYNs with cookies, the packet that ends a handshake
// has no socket at all, and a listener besides. It isn't a stray if its SYN came
// here: only then are SYNs remembered.
func (b *builder) addJudge(judge, inner, stray *nftables.Chain, cookies, syns *nftables.Set) {
	b.rule(judge, fromDevice(giveBackDevice), verdict(expr.VerdictAccept))
	b.rule(judge, fromDevice(straysDevice), jumpTo(inner))
	b.rule(judge, fromDevice("lo"), verdict(expr.VerdictAccept))
	isSYN := func() []expr.Any { return flagsAre(synAck|finRst, flagSYN) }
	b.rule(judge, isSYN(), b.vipMatch(protoTCP, cookies, true), b.flowKey(), remember(syns))
	b.rule(judge, isSYN(), verdict(expr.VerdictAccept))
	b.rule(judge, socketIs(expr.SocketKeyWildcard, expr.CmpOpEq, 0), verdict(expr.VerdictAccept))
	b.rule(judge, b.vipMatch(protoTCP, cookies, true), b.flowKey(), inSet(syns), verdict(expr.VerdictAccept))
	b.addRest(judge, stray)
}

// addRest ends a judgement, with what isn't established here.
func (b *builder) addRest(judge, stray *nftables.Chain) {
	b.rule(judge, socketIs(expr.SocketKeyWildcard, expr.CmpOpEq, 1), jumpTo(stray))
	b.rule(judge, socketIs(expr.SocketKeyTransparent, expr.CmpOpLte, 1), verdict(expr.VerdictAccept))
	b.rule(judge, jumpTo(stray))
}

// addInner lets a tunnelled packet reach its socket and nothing else. Without
// one it is dropped: the site where it entered learns from us that the flow is
// gone, asks anew, and lets its own kernel answer if nobody has it. A reset
// from here could kill a session that has just moved.
func (b *builder) addInner(inner *nftables.Chain) {
	b.rule(inner, socketIs(expr.SocketKeyWildcard, expr.CmpOpEq, 0), verdict(expr.VerdictAccept))
	b.rule(inner, socketIs(expr.SocketKeyWildcard, expr.CmpOpEq, 1), verdict(expr.VerdictDrop))
	b.rule(inner, socketIs(expr.SocketKeyTransparent, expr.CmpOpLte, 1), verdict(expr.VerdictAccept))
	b.rule(inner, verdict(expr.VerdictDrop))
}

// builder queues chains and rules of one table.
type builder struct {
	conn  *nftables.Conn
	table *nftables.Table
	v6    bool
}

// chain queues a chain that others go to.
func (b *builder) chain(name string) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Table: b.table, Name: name})
}

// vipSet queues a set of addresses with ports.
func (b *builder) vipSet(name string, life time.Duration) *nftables.Set {
	s := &nftables.Set{Table: b.table, Name: name, HasTimeout: true, Timeout: life,
		KeyType: nftables.MustConcatSetType(b.addrType(), nftables.TypeInetService)}
	_ = b.conn.AddSet(s, nil) // fails for maps and anonymous sets only
	return s
}

// flowSet queues a set of flows, filled by rules.
func (b *builder) flowSet(name string, life time.Duration, size uint32) *nftables.Set {
	s := &nftables.Set{Table: b.table, Name: name, HasTimeout: true, Timeout: life, Dynamic: true, Size: size,
		KeyType: nftables.MustConcatSetType(b.addrType(), nftables.TypeInetService, b.addrType(), nftables.TypeInetService)}
	_ = b.conn.AddSet(s, nil)
	return s
}

func (b *builder) addrType() nftables.SetDatatype {
	if b.v6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// base queues a chain at a hook of the kernel. It accepts what no rule judges,
// which leaves the packet to the host's own rules.
func (b *builder) base(name string, hook *nftables.ChainHook, prio int) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Table: b.table, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(prio))})
}

// rule queues a rule made of parts, each a match or a statement.
func (b *builder) rule(c *nftables.Chain, parts ...[]expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: slices.Concat(parts...)})
}
