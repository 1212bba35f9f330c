package silence

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tableName = "rhumb_silence"
	// chunk is how many elements stand in one message, whose length field has
	// 16 bits; an element of IPv6 takes 60 octets.
	chunk = 500
	// sendBuffer holds a batch of 60,000 elements.
	sendBuffer = 8 << 20
)

// kernel is the table in nftables. One caller at a time.
type kernel struct {
	conn   *nftables.Conn
	table  *nftables.Table
	v4, v6 *nftables.Set
	alive  *nftables.Set // one element, while somebody renews it; the rules ask for it first
}

func openKernel() (*kernel, error) {
	k := &kernel{}
	return k, k.load()
}

// load makes the table, both sets and the rule, or finds them and makes the rule
// anew: what is in the sets stays. An old connection may have answers left in it.
func (k *kernel) load() error {
	k.close()
	var err error
	k.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(roomy))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	k.table = k.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	if k.v4, err = k.set("held4", keyOf(nftables.TypeIPAddr), held); err != nil {
		return err
	}
	if k.v6, err = k.set("held6", keyOf(nftables.TypeIP6Addr), held); err != nil {
		return err
	}
	if k.alive, err = k.set("alive", nftables.TypeInetProto, Life); err != nil {
		return err
	}
	out := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: "output", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle})
	k.conn.FlushChain(out)
	k.pass(out)
	k.rules(out, k.v4, unix.NFPROTO_IPV4, 12, 4)
	k.rules(out, k.v6, unix.NFPROTO_IPV6, 8, 16)
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("load nftables rules: %w", err)
	}
	return nil
}

// roomy makes a netlink connection take a whole batch at once. In a user namespace
// it is refused; then the host's limit holds.
func roomy[C interface{ SetWriteBuffer(int) error }](c C) error {
	_ = c.SetWriteBuffer(sendBuffer)
	return nil
}

// keyOf is a flow's: address and port of both ends.
func keyOf(addr nftables.SetDatatype) nftables.SetDatatype {
	return nftables.MustConcatSetType(addr, nftables.TypeInetService, addr, nftables.TypeInetService)
}

func (k *kernel) set(name string, key nftables.SetDatatype, life time.Duration) (*nftables.Set, error) {
	s := &nftables.Set{Table: k.table, Name: name, HasTimeout: true, Timeout: life, KeyType: key}
	if err := k.conn.AddSet(s, nil); err != nil {
		return nil, fmt.Errorf("add set %s: %w", name, err)
	}
	return s, nil
}

// The flags of a TCP header's octet 13 (RFC 9293 section 3.1).
const flagFIN, flagRST = 0x01, 0x04

// rules judge what ends a connection of the set. An RST is dropped. A FIN is
// taken out of its segment, not dropped with it: a kernel that could not send
// the last data of an orphan falls back to window probes and forgets the orphan
// after a few, without a word; one that sent it repeats the FIN until it is
// acknowledged, so the client hears of it when the silence ends.
func (k *kernel) rules(c *nftables.Chain, set *nftables.Set, family byte, at, size uint32) {
	const flags = 12 // two octets: checksums are updated by pairs
	word := func(write bool) *expr.Payload {
		p := &expr.Payload{DestRegister: firstReg, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 2}
		if write {
			p.OperationType, p.SourceRegister, p.DestRegister = expr.PayloadWrite, firstReg, 0
			p.CsumType, p.CsumOffset = expr.CsumTypeInet, 16
		}
		return p
	}
	k.rule(c, set, family, at, size, flagRST, &expr.Verdict{Kind: expr.VerdictDrop})
	k.rule(c, set, family, at, size, flagFIN, word(false),
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 2, Mask: []byte{0xff, 0xff &^ flagFIN}, Xor: []byte{0, 0}},
		word(true))
}

// pass lets what ends nothing go on at the first look: of all that a host sends that is the
// most.
func (k *kernel) pass(c *nftables.Chain) {
	k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: c, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstReg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: firstReg, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 1, Mask: []byte{flagFIN | flagRST}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{0}},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}})
}

// firstReg is the first register of 4 octets.
const firstReg = uint32(unix.NFT_REG32_00)

// rule does something with a segment that has a flag, and whose source address,
// source port, destination address and destination port stand in the set. Each
// part of the key begins at a register of 4 octets.
func (k *kernel) rule(c *nftables.Chain, set *nftables.Set, family byte, at, size uint32, flag byte, do ...expr.Any) {
	const reg = firstReg
	network, transport := expr.PayloadBaseNetworkHeader, expr.PayloadBaseTransportHeader
	words := size / 4
	match := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg, Base: transport, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{flag}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{0}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Lookup{SourceRegister: reg, SetName: k.alive.Name, SetID: k.alive.ID},
		&expr.Payload{DestRegister: reg, Base: network, Offset: at, Len: size},
		&expr.Payload{DestRegister: reg + words, Base: transport, Offset: 0, Len: 2},
		&expr.Payload{DestRegister: reg + words + 1, Base: network, Offset: at + size, Len: size},
		&expr.Payload{DestRegister: reg + 2*words + 1, Base: transport, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
		&expr.Counter{},
	}
	k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: c, Exprs: append(match, do...)})
}

// add enters flows; one that is there keeps its time.
func (k *kernel) add(flows []Flow) error {
	if err := k.queue(flows); err != nil {
		return err
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("add %d flows: %w", len(flows), err)
	}
	return nil
}

func (k *kernel) queue(flows []Flow) error { return k.each(flows, k.conn.SetAddElements) }

// each does something with the elements of flows, as many as a message takes at a time.
func (k *kernel) each(flows []Flow, do func(*nftables.Set, []nftables.SetElement) error) error {
	v4, v6 := elements(flows)
	for _, part := range []struct {
		set  *nftables.Set
		list []nftables.SetElement
	}{{k.v4, v4}, {k.v6, v6}} {
		for list := range slices.Chunk(part.list, chunk) {
			if err := do(part.set, list); err != nil {
				return fmt.Errorf("elements of %s: %w", part.set.Name, err)
			}
		}
	}
	return nil
}

// renew keeps all flows quiet for the next Life: of the many elements one counts. Adding
// what is there does not renew it, so a batch empties the set and fills it again; a
// segment sees it before that or after it.
func (k *kernel) renew() error {
	if err := k.breathe(); err != nil {
		return err
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	return nil
}

// breathe queues what renews.
func (k *kernel) breathe() error {
	k.conn.FlushSet(k.alive)
	if err := k.conn.SetAddElements(k.alive, []nftables.SetElement{{Key: []byte{unix.IPPROTO_TCP}}}); err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	return nil
}

// refill renews, and makes the sets hold exactly these flows.
func (k *kernel) refill(flows []Flow) error {
	if err := k.breathe(); err != nil {
		return err
	}
	k.conn.FlushSet(k.v4)
	k.conn.FlushSet(k.v6)
	if err := k.queue(flows); err != nil {
		return err
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("enter %d flows: %w", len(flows), err)
	}
	return nil
}

// remove takes flows out. They are added in the same batch before: an element whose time
// is over could not be deleted.
func (k *kernel) remove(flows []Flow) error {
	if err := k.queue(flows); err != nil {
		return err
	}
	if err := k.each(flows, k.conn.SetDeleteElements); err != nil {
		return err
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("remove %d flows: %w", len(flows), err)
	}
	return nil
}

// list reads the flows that are quiet, in order: none if nobody has renewed them for a
// Life.
func (k *kernel) list() ([]Flow, error) {
	found := map[Flow]bool{}
	if breath, err := k.conn.GetSetElements(k.alive); err != nil || len(breath) == 0 {
		return nil, err
	}
	for _, set := range []*nftables.Set{k.v4, k.v6} {
		all, err := k.conn.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("list set %s: %w", set.Name, err)
		}
		for _, e := range all {
			if f, ok := flowOf(e.Key); ok {
				found[f] = true
			}
		}
	}
	return sorted(found), nil
}

// destroy takes the table away.
func (k *kernel) destroy() error {
	k.conn.DelTable(k.table)
	err := k.conn.Flush()
	k.close()
	if err != nil {
		return fmt.Errorf("silence: remove nftables rules: %w", err)
	}
	return nil
}

func (k *kernel) close() {
	if k.conn != nil {
		_ = k.conn.CloseLasting()
	}
}

// key is the flow as the rule above reads it off a segment.
func (f Flow) key() []byte {
	var b []byte
	for _, end := range [2]netip.AddrPort{f.Local, f.Peer} {
		b = append(b, end.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, end.Port())
		b = append(b, 0, 0) // each part is padded to 4 octets
	}
	return b
}

// flowOf is the inverse of key.
func flowOf(key []byte) (Flow, bool) {
	size := len(key) / 2
	if size != 8 && size != 20 || len(key)%2 != 0 {
		return Flow{}, false
	}
	end := func(b []byte) netip.AddrPort {
		a, _ := netip.AddrFromSlice(b[:size-4])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[size-4:]))
	}
	return Flow{Local: end(key), Peer: end(key[size:])}, true
}
