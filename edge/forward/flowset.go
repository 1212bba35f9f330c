package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// flowSet asks the kernel about the set of QUIC flows, one exact key at a time,
// in the network namespace where it was opened. It is safe for concurrent use.
type flowSet struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf [8 << 10]byte
}

// openFlowSet opens the socket; asking needs CAP_NET_ADMIN.
func openFlowSet() (*flowSet, error) {
	fd, err := openNetlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("forward: open netfilter: %w", err)
	}
	return &flowSet{fd: fd}, nil
}

func (s *flowSet) close() { _ = unix.Close(s.fd) }

// has tells whether the flow is in the set, and its time isn't up.
func (s *flowSet) has(f Flow) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	if err := unix.Sendto(s.fd, getElement(f, s.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("forward: look up %s: %w", f, err)
	}
	for {
		n, err := receive(s.fd, s.buf[:])
		if err != nil {
			return false, fmt.Errorf("forward: look up %s: %w", f, err)
		}
		if n < nlHeaderSize || binary.NativeEndian.Uint32(s.buf[8:]) != s.seq {
			continue // the late answer to an earlier request
		}
		found, err := elementAnswer(s.buf[:n])
		if err != nil {
			return false, fmt.Errorf("forward: look up %s: %w", f, err)
		}
		return found, nil
	}
}

// elementAnswer reads the kernel's reply: the element, or why there is none.
func elementAnswer(b []byte) (bool, error) {
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.NLMSG_ERROR:
		if len(b) < nlHeaderSize+4 {
			return false, errShort
		}
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[nlHeaderSize:])))
		// Without our table, too: no flow is known.
		if errno == unix.ENOENT {
			return false, nil
		}
		return false, errno
	case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM:
		return true, nil
	}
	return false, errors.New("unexpected type of reply")
}

// getElement is the request for one element (linux/netfilter/nf_tables.h).
func getElement(f Flow, seq uint32) []byte {
	family := byte(unix.NFPROTO_IPV4)
	if f.VIP.Addr().Is6() {
		family = unix.NFPROTO_IPV6
	}
	const nested = unix.NLA_F_NESTED
	value := attribute(unix.NFTA_DATA_VALUE, flowKey(f))
	key := attribute(nested|unix.NFTA_SET_ELEM_KEY, value)
	elements := attribute(nested|unix.NFTA_SET_ELEM_LIST_ELEMENTS, attribute(nested|unix.NFTA_LIST_ELEM, key))
	body := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attribute(unix.NFTA_SET_ELEM_LIST_TABLE, []byte(tableName+"\x00"))...)
	body = append(body, attribute(unix.NFTA_SET_ELEM_LIST_SET, []byte(flowsName+"\x00"))...)
	body = append(body, elements...)

	b := make([]byte, nlHeaderSize, nlHeaderSize+len(body))
	binary.NativeEndian.PutUint32(b, uint32(nlHeaderSize+len(body)))
	binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return append(b, body...)
}

// attribute is a netlink attribute, padded to 4 octets.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// flowKey is the key of a flow in our sets: each part padded to 4 octets.
func flowKey(f Flow) []byte {
	var b []byte
	for _, end := range [2]netip.AddrPort{f.Client, f.VIP} {
		b = append(b, end.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, end.Port())
		b = append(b, 0, 0)
	}
	return b
}

// keyFlow reads a key back.
func keyFlow(b []byte) (Flow, bool) {
	size := len(b)/2 - 4
	if len(b)%2 != 0 || size != 4 && size != 16 {
		return Flow{}, false
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, _ := netip.AddrFromSlice(b[:size])
		ends[i] = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[size:]))
		b = b[size+4:]
	}
	return Flow{Client: ends[0], VIP: ends[1]}, true
}

// eachQUIC visits the QUIC flows known to this host: those of connections that
// sent something lately. Where no forwarder runs, or may be looked at, there
// are none.
func eachQUIC(visit func(Flow)) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("forward: open nftables: %w", err)
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		list, err := conn.GetSetElements(&nftables.Set{Name: flowsName, Table: &nftables.Table{Family: family, Name: tableName}})
		if err != nil {
			continue // ENOENT or EPERM, which the library doesn't tell apart from others
		}
		for _, e := range list {
			if flow, ok := keyFlow(e.Key); ok {
				visit(flow)
			}
		}
	}
	return nil
}
