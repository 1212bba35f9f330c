//go:build e2e

package edge

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"rhumb/edge/tcprepair"
)

// tapped is one segment as it passed a host's interface.
type tapped struct {
	Out bool // sent by the host
	tcprepair.Segment
}

// tapRole notes every TCP segment that passes e0. "take" is answered by what it
// has noted since the last time.
func tapRole() error {
	const proto = unix.ETH_P_ALL
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(swap16(proto)))
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return err
	}
	var mu sync.Mutex
	var all []tapped
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return
			}
			seg, err := tcprepair.ParseSegment(buf[:n])
			ll, ok := from.(*unix.SockaddrLinklayer)
			if err != nil || !ok {
				continue
			}
			mu.Lock()
			all = append(all, tapped{ll.Pkttype == unix.PACKET_OUTGOING, seg})
			mu.Unlock()
		}
	}()
	out := json.NewEncoder(os.Stdout)
	out.Encode("there")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		mu.Lock()
		out.Encode(all)
		all = nil
		mu.Unlock()
	}
	return in.Err()
}

func swap16(v uint16) uint16 { return v<<8 | v>>8 }

// wireRole sends each segment that it is told, whoever has the connection.
func wireRole() error {
	w, err := tcprepair.OpenWire()
	if err != nil {
		return err
	}
	defer w.Close()
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); out.Encode("sent") {
		var s tcprepair.Segment
		if err := json.Unmarshal(in.Bytes(), &s); err != nil {
			return err
		}
		if err := w.Send(s); err != nil {
			return err
		}
	}
	return nil
}

// line is v as JSON.
func line(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
