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
)

// rules is the kernel's half of the forwarder: one table for each family.
// Only the goroutine that renews may use it.
type rules struct {
	conn   *nftables.Conn
	strays uint32 // index of the strays device
	v6     bool
	tables []*familyTable
}

// familyTable is the table of one family with its two sets of VIPs.
type familyTable struct {
	v6         bool
	table      *nftables.Table
	act, watch *nftables.Set
}

// loadRules puts the tables into the kernel. The strays device must exist
// already: dup keeps the index of the device, not its name, and would copy to
// nowhere if that were made anew.
func loadRules(strays uint32, v6 bool) (*rules, error) {
	r := &rules{strays: strays, v6: v6}
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
	if r.conn, err = nftables.New(nftables.AsLasting()); err != nil {
		return fmt.Errorf("forward: open nftables: %w", err)
	}
	r.tables = []*familyTable{addFamily(r.conn, r.strays, false)}
	if r.v6 {
		r.tables = append(r.tables, addFamily(r.conn, r.strays, true))
	}
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("forward: load nftables rules (the kernel needs nft_socket and nft_dup): %w", err)
	}
	return nil
}

// keep renews the VIPs. If that fails, somebody has removed our tables, as a
// firewall does that flushes the ruleset to load its own: they are made anew.
func (r *rules) keep(vips map[netip.AddrPort]Mode) (again bool, err error) {
	if r.renew(vips) == nil {
		return false, nil
	}
	if err := r.load(); err != nil {
		return true, err
	}
	return true, r.renew(vips)
}

// renew makes the two sets hold exactly these VIPs for the next elementLife.
// Adding an element that is there doesn't renew it, so a batch empties the set
// and fills it again; packets see the set before it or after it.
func (r *rules) renew(vips map[netip.AddrPort]Mode) error {
	for _, t := range r.tables {
		act, watch := t.elements(vips)
		r.conn.FlushSet(t.act)
		r.conn.FlushSet(t.watch)
		if err := r.conn.SetAddElements(t.act, act); err != nil {
			return fmt.Errorf("forward: renew VIPs: %w", err)
		}
		if err := r.conn.SetAddElements(t.watch, watch); err != nil {
			return fmt.Errorf("forward: renew VIPs: %w", err)
		}
	}
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("forward: renew VIPs: %w", err)
	}
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

// elements splits the VIPs of this family by mode.
func (t *familyTable) elements(vips map[netip.AddrPort]Mode) (act, watch []nftables.SetElement) {
	// In order, so that equal sets make equal batches.
	list := make([]netip.AddrPort, 0, len(vips))
	for vip := range vips {
		if vip.Addr().Is6() == t.v6 {
			list = append(list, vip)
		}
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	for _, vip := range list {
		key := vip.Addr().AsSlice()
		key = binary.BigEndian.AppendUint16(key, vip.Port())
		key = append(key, 0, 0) // each part of a key is padded to 4 octets
		if vips[vip] == Act {
			act = append(act, nftables.SetElement{Key: key})
		} else {
			watch = append(watch, nftables.SetElement{Key: key})
		}
	}
	return act, watch
}

// addFamily queues one family's table:
//
//	prerouting  tcp to @act goto act; to @watch goto watch
//	act         what is new or has a socket here: accept; else goto stray
//	stray       dup to the strays device; drop
//	watch       as act, but a stray is copied and then left to the kernel
//	inner       what came by tunnel: to its socket, or dropped
//	output      SYN-ACK from @act: clamp the MSS
func addFamily(conn *nftables.Conn, strays uint32, v6 bool) *familyTable {
	family, addr := nftables.TableFamilyIPv4, nftables.TypeIPAddr
	if v6 {
		family, addr = nftables.TableFamilyIPv6, nftables.TypeIP6Addr
	}
	// One batch, so there is no moment with half a table.
	old := &nftables.Table{Family: family, Name: tableName}
	conn.AddTable(old) // so that the delete finds one
	conn.DelTable(old)
	t := &familyTable{v6: v6, table: conn.AddTable(&nftables.Table{Family: family, Name: tableName})}
	set := func(name string) *nftables.Set {
		s := &nftables.Set{Table: t.table, Name: name, HasTimeout: true, Timeout: elementLife,
			KeyType: nftables.MustConcatSetType(addr, nftables.TypeInetService)}
		_ = conn.AddSet(s, nil) // fails for maps and anonymous sets only
		return s
	}
	t.act, t.watch = set("act"), set("watch")

	b := &builder{conn: conn, table: t.table, v6: v6}
	inner, stray, seen := b.chain("inner"), b.chain("stray"), b.chain("seen")
	b.addInner(inner)
	b.rule(stray, counted(), dupTo(strays, v6), verdict(expr.VerdictDrop))
	b.rule(seen, counted(), dupTo(strays, v6), verdict(expr.VerdictAccept))
	act, watch := b.chain("act"), b.chain("watch")
	b.addJudge(act, inner, stray)
	b.addJudge(watch, inner, seen)

	pre := b.base("prerouting", nftables.ChainHookPrerouting, priority)
	b.rule(pre, b.vipMatch(t.act, true), jumpTo(act))
	b.rule(pre, b.vipMatch(t.watch, true), jumpTo(watch))
	out := b.base("output", nftables.ChainHookOutput, int(*nftables.ChainPriorityMangle))
	b.rule(out, b.vipMatch(t.act, false), flagsAre(synAck, synAck), setMSS(clampMSS))
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
func (b *builder) addJudge(judge, inner, stray *nftables.Chain) {
	b.rule(judge, fromDevice(giveBackDevice), verdict(expr.VerdictAccept))
	b.rule(judge, fromDevice(straysDevice), jumpTo(inner))
	b.rule(judge, fromDevice("lo"), verdict(expr.VerdictAccept))
	b.rule(judge, flagsAre(synAck|finRst, flagSYN), verdict(expr.VerdictAccept))
	b.rule(judge, socketIs(expr.SocketKeyWildcard, expr.CmpOpEq, 0), verdict(expr.VerdictAccept))
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
