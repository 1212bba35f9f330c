package forward

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// message builds a netlink message as the kernel sends it.
func message(kind uint16, seq uint32, body []byte) []byte {
	b := make([]byte, nlHeaderSize, nlHeaderSize+len(body))
	binary.NativeEndian.PutUint32(b[0:], uint32(nlHeaderSize+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return append(b, body...)
}

// socketBody builds a struct inet_diag_msg.
func socketBody(family, state byte, f Flow) []byte {
	m := make([]byte, messageSize)
	m[0], m[1] = family, state
	binary.BigEndian.PutUint16(m[4:], f.VIP.Port())
	binary.BigEndian.PutUint16(m[6:], f.Client.Port())
	for at, addr := range map[int]netip.Addr{8: f.VIP.Addr(), 24: f.Client.Addr()} {
		if family == unix.AF_INET6 {
			as16 := addr.As16() // IPv4 becomes a mapped address
			copy(m[at:], as16[:])
		} else {
			copy(m[at:], addr.AsSlice())
		}
	}
	return m
}

func errnoBody(errno unix.Errno) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
}

func TestExactAnswer(t *testing.T) {
	tests := []struct {
		name  string
		reply []byte
		state byte
		err   error
	}{
		{"established", message(unix.SOCK_DIAG_BY_FAMILY, 1, socketBody(unix.AF_INET, tcpEstablished, flow4(1))), tcpEstablished, nil},
		{"listener", message(unix.SOCK_DIAG_BY_FAMILY, 1, socketBody(unix.AF_INET, tcpListen, flow4(1))), tcpListen, nil},
		{"none", message(unix.NLMSG_ERROR, 1, errnoBody(unix.ENOENT)), 0, nil},
		{"refused", message(unix.NLMSG_ERROR, 1, errnoBody(unix.EPERM)), 0, unix.EPERM},
		{"error cut short", message(unix.NLMSG_ERROR, 1, nil), 0, errShort},
		{"socket cut short", message(unix.SOCK_DIAG_BY_FAMILY, 1, make([]byte, messageSize-1)), 0, errShort},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			state, err := exactAnswer(test.reply)
			if state != test.state || !errors.Is(err, test.err) {
				t.Errorf("state %d, %v; want %d, %v", state, err, test.state, test.err)
			}
		})
	}
	if _, err := exactAnswer(message(99, 1, nil)); err == nil {
		t.Error("a reply of unknown type was accepted")
	}
}

func TestReadDump(t *testing.T) {
	var datagram []byte
	want := []Flow{flow4(1), flow6(2), flow4(3)}
	datagram = append(datagram, message(unix.SOCK_DIAG_BY_FAMILY, 7, socketBody(unix.AF_INET, tcpEstablished, want[0]))...)
	datagram = append(datagram, message(unix.SOCK_DIAG_BY_FAMILY, 7, socketBody(unix.AF_INET6, tcpEstablished, want[1]))...)
	datagram = append(datagram, message(unix.SOCK_DIAG_BY_FAMILY, 6, socketBody(unix.AF_INET, tcpEstablished, flow4(9)))...)
	datagram = append(datagram, message(unix.SOCK_DIAG_BY_FAMILY, 7, socketBody(unix.AF_INET6, tcpEstablished, want[2]))...)
	var got []Flow
	visit := func(f Flow) { got = append(got, f) }
	if done, err := readDump(datagram, 7, visit); done || err != nil {
		t.Fatalf("done %v, %v before the end", done, err)
	}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%v, want %v", got, want)
	}
	if done, err := readDump(message(unix.NLMSG_DONE, 7, make([]byte, 4)), 7, visit); !done || err != nil {
		t.Errorf("at the end: done %v, %v", done, err)
	}
	if done, err := readDump(message(unix.NLMSG_ERROR, 7, errnoBody(unix.EPERM)), 7, visit); !done || !errors.Is(err, unix.EPERM) {
		t.Errorf("at an error: done %v, %v", done, err)
	}
	broken := message(unix.SOCK_DIAG_BY_FAMILY, 7, nil)
	binary.NativeEndian.PutUint32(broken, 4)
	if _, err := readDump(broken, 7, visit); !errors.Is(err, errShort) {
		t.Errorf("a message shorter than its header: %v", err)
	}
}

// FuzzReadDump holds that a malformed reply neither panics nor loops.
func FuzzReadDump(f *testing.F) {
	f.Add(message(unix.SOCK_DIAG_BY_FAMILY, 7, socketBody(unix.AF_INET6, tcpEstablished, flow6(2))))
	f.Add(message(unix.NLMSG_DONE, 7, make([]byte, 4)))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_, _ = readDump(b, 7, func(Flow) { n++ })
		if n > len(b)/messageSize {
			t.Fatalf("%d sockets in %d octets", n, len(b))
		}
	})
}

// TestExactStates follows a connection through its states: as long as the
// client's packets matter, the answer is yes.
func TestExactStates(t *testing.T) {
	eachFamily(t, func(t *testing.T, ip string) {
		d, err := openDiag()
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		flow := Flow{Client: client.LocalAddr().(*net.TCPAddr).AddrPort(), VIP: listener.Addr().(*net.TCPAddr).AddrPort()}
		is := func(stage string, want bool) {
			t.Helper()
			if owned, err := d.owned(flow); err != nil || owned != want {
				t.Errorf("%s: owned %v, %v; want %v", stage, owned, err, want)
			}
		}
		is("established, not yet accepted", true)
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		is("established", true)
		_ = server.Close()
		is("server closed first (FIN_WAIT)", true)
		_ = client.Close()
		is("both closed (TIME_WAIT or the way to it)", true)
		flow.Client = netip.AddrPortFrom(flow.Client.Addr(), flow.Client.Port()^1)
		is("a neighbour's port, listener only", false)
		_ = listener.Close()
		is("nobody listens", false)
	})
}

// TestRequestLayout pins the bytes of an exact request (linux/inet_diag.h).
func TestRequestLayout(t *testing.T) {
	r := exactRequest(flow4(0x1234), 5)
	if len(r) != 72 || binary.NativeEndian.Uint16(r[6:])&unix.NLM_F_DUMP != 0 {
		t.Errorf("%d octets, flags %#x: want 72 and no dump", len(r), binary.NativeEndian.Uint16(r[6:]))
	}
	for name, e := range map[string]struct{ got, want []byte }{
		"family, protocol": {r[16:18], []byte{unix.AF_INET, unix.IPPROTO_TCP}},
		"ports":            {r[24:28], []byte{0, 80, 0x12, 0x34}},
		"VIP":              {r[28:32], []byte{192, 0, 2, 10}},
		"client":           {r[44:48], []byte{198, 51, 100, 7}},
		"interface":        {r[60:64], []byte{0, 0, 0, 0}},
		"no cookie":        {r[64:72], []byte{255, 255, 255, 255, 255, 255, 255, 255}},
	} {
		if string(e.got) != string(e.want) {
			t.Errorf("%s: % x, want % x", name, e.got, e.want)
		}
	}
}
