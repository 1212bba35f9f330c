package forward

import (
	"net"
	"net/netip"
	"testing"
)

// TestSessionsLeavesOutTheHost counts a connection of the host to itself among what
// it owns, but not among the clients.
func TestSessionsLeavesOutTheHost(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	vip := ln.Addr().(*net.TCPAddr).AddrPort()
	counts, err := Sessions([]netip.AddrPort{vip})
	if n, ok := counts[vip]; err != nil || !ok || n != 0 {
		t.Errorf("clients %v, %v; want an entry of 0", counts, err)
	}
	owned := 0
	if err := eachSession([]netip.AddrPort{vip}, liveStates, func(Flow) { owned++ }); err != nil || owned != 1 {
		t.Errorf("owns %d, %v; want 1", owned, err)
	}
}
