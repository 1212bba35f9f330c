package hold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

const tableName = "rhumb_hold"

// kernel is the table in nftables. One caller at a time.
type kernel struct {
	conn   *nftables.Conn
	table  *nftables.Table
	v4, v6 *nftables.Set
}

func openKernel() (*kernel, error) {
	k := &kernel{}
	return k, k.load()
}

// load makes the table anew. Kernels may lack the queue expression of nftables and
// have the target of iptables for the same, which nftables takes too.
func (k *kernel) load() error {
	native := k.loadWith(&expr.Queue{Num: number})
	if native == nil {
		return nil
	}
	// struct xt_NFQ_info_v3: number, count of queues, flags; in 8 octets.
	info := xt.Unknown(binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, number), 1))
	info = append(info, 0, 0, 0, 0)
	if err := k.loadWith(&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}); err != nil {
		return fmt.Errorf("load nftables rules: %w", errors.Join(native, err))
	}
	return nil
}

func (k *kernel) loadWith(queue expr.Any) (err error) {
	k.close()
	if k.conn, err = nftables.New(nftables.AsLasting()); err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	k.table = k.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	if k.v4, err = k.set("watched4", nftables.TypeIPAddr); err != nil {
		return err
	}
	if k.v6, err = k.set("watched6", nftables.TypeIP6Addr); err != nil {
		return err
	}
	// Behind the silence of dead processes: what that changes is judged as it leaves.
	priority := *nftables.ChainPriorityMangle + 1
	out := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: "output", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: &priority})
	k.conn.FlushChain(out)
	k.rule(out, k.v4, unix.NFPROTO_IPV4, 12, 4, queue)
	k.rule(out, k.v6, unix.NFPROTO_IPV6, 8, 16, queue)
	return k.conn.Flush()
}

func (k *kernel) set(name string, addr nftables.SetDatatype) (*nftables.Set, error) {
	s := &nftables.Set{Table: k.table, Name: name, HasTimeout: true, Timeout: Life,
		KeyType: nftables.MustConcatSetType(addr, nftables.TypeInetService)}
	if err := k.conn.AddSet(s, nil); err != nil {
		return nil, fmt.Errorf("add set %s: %w", name, err)
	}
	return s, nil
}

// The flags of a TCP header's octet 13 (RFC 9293 section 3.1).
const flagSYN, flagRST = 0x02, 0x04

// rule queues a segment of a marked socket, from an address and port of the set. A
// handshake acknowledges no octet, and a reset ends the connection anyway.
func (k *kernel) rule(c *nftables.Chain, set *nftables.Set, family byte, at, size uint32, queue expr.Any) {
	const reg = uint32(unix.NFT_REG32_00)
	k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: c, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.NativeEndian.AppendUint32(nil, Mark)},
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{flagSYN | flagRST}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{0}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: size},
		&expr.Payload{DestRegister: reg + size/4, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID},
		&expr.Counter{}, queue,
	}})
}

// renew makes the sets hold exactly these addresses for the next Life. Adding what is
// there does not renew it, so a batch empties the sets and fills them again; a segment
// sees them before it or after it.
func (k *kernel) renew(vips []netip.AddrPort) error {
	k.conn.FlushSet(k.v4)
	k.conn.FlushSet(k.v6)
	for _, v := range vips {
		set := k.v6
		if v.Addr().Is4() {
			set = k.v4
		}
		key := append(binary.BigEndian.AppendUint16(v.Addr().AsSlice(), v.Port()), 0, 0)
		if err := k.conn.SetAddElements(set, []nftables.SetElement{{Key: key}}); err != nil {
			return fmt.Errorf("add element: %w", err)
		}
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("watch %d addresses: %w", len(vips), err)
	}
	return nil
}

// destroy takes the table away.
func (k *kernel) destroy() error {
	k.conn.DelTable(k.table)
	err := k.conn.Flush()
	k.close()
	if err != nil {
		return fmt.Errorf("hold: remove nftables rules: %w", err)
	}
	return nil
}

func (k *kernel) close() {
	if k.conn != nil {
		_ = k.conn.CloseLasting()
	}
}
