package netlab

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Main returns all routes of the main table, whoever made them, ordered by prefix.
func (f *FIB) Main() ([]FIBRoute, error) {
	return f.list(&netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
}

// Established returns the far ends of the host's TCP connections that stand, with
// the port at either end, as the kernel lists them.
func (h *Host) Established(port uint16) (peers []netip.Addr, err error) {
	err = h.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return fmt.Errorf("netlab: connections of %s: %w", h.Name, err)
			}
			found, err := established(string(text), port)
			if err != nil {
				return fmt.Errorf("netlab: connections of %s: %w", h.Name, err)
			}
			peers = append(peers, found...)
		}
		return nil
	})
	return peers, err
}

// standing is the kernel's number of the state ESTABLISHED.
const standing = "01"

// established reads the kernel's list: a heading, then a line a socket, of which
// the second column is the near end, the third the far one, the fourth the state.
func established(text string, port uint16) ([]netip.Addr, error) {
	var out []netip.Addr
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		col := strings.Fields(line)
		if i == 0 || len(col) < 4 || col[3] != standing {
			continue
		}
		near, err := procAddr(col[1])
		if err != nil {
			return nil, err
		}
		far, err := procAddr(col[2])
		if err != nil {
			return nil, err
		}
		if near.Port() == port || far.Port() == port {
			out = append(out, far.Addr())
		}
	}
	return out, nil
}

// procAddr reads an end as the kernel prints it: words of 32 bits in the order of
// this machine's memory, a colon, the port.
func procAddr(s string) (netip.AddrPort, error) {
	text, portText, _ := strings.Cut(s, ":")
	words, err := hex.DecodeString(text)
	if err != nil || len(words) != 4 && len(words) != 16 {
		return netip.AddrPort{}, fmt.Errorf("end %q", s)
	}
	for k := 0; k < len(words); k += 4 {
		binary.NativeEndian.PutUint32(words[k:], binary.BigEndian.Uint32(words[k:]))
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("end %q: %w", s, err)
	}
	a, _ := netip.AddrFromSlice(words)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil
}
