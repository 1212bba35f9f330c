package forward

import (
	"bytes"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHoldWaits: a packet that came by tunnel and was judged before a hold is at
// the kernel when the hold returns. The holder silences the socket next: what
// comes behind that is lost, and may be the client's only word that its window is
// open.
func TestHoldWaits(t *testing.T) {
	f := testForwarder(t, time.Now, Peer{Site: "b", Addr: netip.MustParseAddrPort("203.0.113.3:4790"), Key: [32]byte{9}})
	flow := claimFlow()
	f.vips.Store(&map[netip.AddrPort]Mode{flow.VIP: Act})
	near, far := slowDevice(t)
	r := f.newReceiver(&ends{rim: &rim{strays: near}})
	r.served[session{protoTCP, flow}] = servedEntry{ok: true, until: time.Now().Add(time.Hour)}
	word := tcpPacket(flow, flagACK, "")

	delivered, held := make(chan error, 1), make(chan struct{})
	go func() { delivered <- r.deliver(time.Now(), f.peers.Load().find("b"), word) }()
	for end := time.Now().Add(patience); judged(f) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no packet was judged in time")
		}
	}
	go func() { f.Hold(flow); close(held) }()
	select {
	case <-held:
		t.Error("the hold returned before the packet was written")
	case <-time.After(100 * time.Millisecond): // to be wrong in; a hold that waits, waits for the device
	}
	// Reading makes room for the packet, behind what filled the device.
	for got := []byte(nil); !bytes.Equal(got, word); {
		if got = next(t, far, patience); got == nil {
			t.Fatal("the packet did not reach the device in time")
		}
	}
	if err := <-delivered; err != nil {
		t.Errorf("delivered: %v", err)
	}
	select {
	case <-held:
	case <-time.After(patience):
		t.Fatal("the hold does not return")
	}
	if err := r.deliver(time.Now(), f.peers.Load().find("b"), word); err != nil {
		t.Error(err)
	}
	if f.heldPackets() != 1 {
		t.Errorf("%v packets are kept, want the one behind the hold", f.heldPackets())
	}
}

// judged counts the packets that were found to be for this host.
func judged(f *Forwarder) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.arrivals.packets
}

// slowDevice is a device that takes nothing more until somebody reads far.
func slowDevice(t *testing.T) (near *port, far *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = unix.Write(fds[0], make([]byte, 1024))
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	near, far = &port{file: os.NewFile(uintptr(fds[0]), "near")}, os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { _ = near.file.Close(); _ = far.Close() })
	return near, far
}
