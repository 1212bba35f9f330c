package tcprepair

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel translates each socket's own filter to machine code, maps memory for it and takes
// it down again: 30 us of a processor a connection, a fifth of what one costs. So there is one
// program for all connections of a Wire, to which a socket needs but a reference. It lets in
// what comes over lo with the clock of a lesson, and nothing else: clients come by other devices.

// ebpf is the kernel's struct bpf_insn. The first register of regs is in its low half.
type ebpf struct {
	code, regs uint8
	off        int16
	imm        int32
}

const (
	ingressOffset = 36 // of ingress_ifindex in struct __sk_buff
	loopback      = 1  // the index of lo, in each namespace
	timestampHead = 1<<24 | 1<<16 | timestampOption<<8 | 10
	lessonKeep    = 0xffff // octets of what is let in
)

// lessonFilter is the program. What the filter of a TCP socket sees begins at the TCP header;
// a load beyond the end of a packet drops it.
func lessonFilter() []ebpf {
	const load, unequal, set, exit = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K, unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, unix.BPF_JMP | unix.BPF_EXIT
	return []ebpf{
		{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X, regs: 1<<4 | 6}, // loads want the packet in r6
		{code: unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM, regs: 6 << 4, off: ingressOffset},
		{code: unequal, off: 6, imm: loopback},
		{code: load, imm: tcpSize},
		{code: unequal, off: 4, imm: timestampHead},
		{code: load, imm: tcpSize + 4},
		{code: unequal, off: 2, imm: lessonClock},
		{code: set, imm: lessonKeep},
		{code: exit},
		{code: set},
		{code: exit},
	}
}

// loadFilter gives the kernel the program (bpf(2)). In a user namespace it mostly refuses.
func loadFilter(code []ebpf) (int, error) {
	licence := []byte("none\x00")
	var attr struct { // of BPF_PROG_LOAD
		kind, count   uint32
		code, licence uint64
		rest          [24]uint32
	}
	attr.kind, attr.count = unix.BPF_PROG_TYPE_SOCKET_FILTER, uint32(len(code))
	attr.code, attr.licence = uint64(uintptr(unsafe.Pointer(&code[0]))), uint64(uintptr(unsafe.Pointer(&licence[0])))
	var pin runtime.Pinner
	pin.Pin(&code[0])
	pin.Pin(&licence[0])
	defer pin.Unpin()
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return -1, fmt.Errorf("tcprepair: load a socket filter: %w", errno)
	}
	return int(fd), nil
}

// hearLesson makes the kernel drop every packet for this socket but a lesson. Where there is no
// program for all, it compiles one of the socket's own.
func (w *Wire) hearLesson(s sock, lesson Segment) error {
	if w.filter >= 0 && s.setInt(unix.SOL_SOCKET, unix.SO_ATTACH_BPF, uint32(w.filter), "SO_ATTACH_BPF") == nil {
		return nil
	}
	return s.hearOnly(lesson)
}
