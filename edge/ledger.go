package edge

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"rhumb/edge/frame"
)

// ledger remembers which hand-offs were activated here, over the death of the process and
// not of the machine: a shared mapping of a small file, written without a system call. A
// giver who asks the next process hears a certain no of what was never activated. The nil
// ledger remembers nothing, and is certain of nothing. Safe for concurrent use.
//
// The file is a ring. What it forgets raises the horizon: of an offer whose epoch is not
// above it, nobody can say that it was never here.
type ledger struct {
	mu      sync.Mutex
	file    *os.File
	mem     []byte
	mark    [ledgerMark]byte // of this file; in each Ready, and given back in Commit
	seq     uint64           // of the last line
	horizon uint64           // the highest epoch that was or is about to be overwritten
}

// ledgerState is what became of a hand-off.
type ledgerState uint8

// The states, as they stand in the file.
const (
	ledgerNone   ledgerState = iota // it is not there
	ledgerBegun                     // about to be activated, perhaps it was; or it has ended since
	ledgerActive                    // it was activated, its server is to serve it
	ledgerNever                     // it could not be activated
)

// ledgerRow is one hand-off.
type ledgerRow struct {
	key   frame.Key
	epoch uint64
	gen   uint32
	id    uint64 // of the offer to the local server; 0: our own session
	state ledgerState
}

// Layout of the file: a head and ledgerLines lines. In a line: CRC-32 of what is behind
// the first 8 octets (4), state (1), 0 (3), number (8), horizon (8), epoch (8), generation
// (4), number of the offer (8), ends (36).
const (
	ledgerMark  = 8
	ledgerHead  = 4096
	ledgerLine  = 80
	ledgerLines = 1 << 15
	ledgerSize  = ledgerHead + ledgerLines*ledgerLine

	bootSize = 36
)

// ledgerMagic begins the file; the boot and the mark follow.
const ledgerMagic = "rhumb taken 1\n"

var errLedgerUsed = errors.New("another process has it")

// openLedger opens or makes the file. One of an earlier boot is made anew.
func openLedger(path, boot string) (*ledger, error) {
	if path == "" {
		return nil, nil
	}
	l, err := newLedger(path, boot)
	if err != nil {
		return nil, fmt.Errorf("edge: ledger of hand-offs %s: %w", path, err)
	}
	return l, nil
}

func newLedger(path, boot string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &ledger{file: f}
	fd := int(f.Fd())
	switch err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = errLedgerUsed
	case err == nil:
		// With room for all of it: a write to a mapping cannot fail in an orderly way.
		if err = unix.Fallocate(fd, 0, 0, ledgerSize); err == nil {
			l.mem, err = unix.Mmap(fd, 0, ledgerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	head := append([]byte(ledgerMagic), make([]byte, bootSize)...)
	copy(head[len(ledgerMagic):], boot)
	if !bytes.Equal(l.mem[:len(head)], head) {
		clear(l.mem)
		if _, err := rand.Read(l.mem[len(head) : len(head)+ledgerMark]); err != nil {
			return nil, errors.Join(err, l.close())
		}
		copy(l.mem, head) // last: a head is of a file that is whole
	}
	copy(l.mark[:], l.mem[len(head):])
	l.read()
	return l, nil
}

// bootID names this run of the kernel.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // as the file of any earlier run that could not tell; /run is empty after a boot
	}
	return string(bytes.TrimSpace(b))
}

func (l *ledger) close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	mem := l.mem
	l.mem = nil
	if mem == nil {
		return nil
	}
	return errors.Join(unix.Munmap(mem), l.file.Close())
}

// at is a line of the ring.
func (l *ledger) at(n uint64) []byte {
	i := ledgerHead + int(n%ledgerLines)*ledgerLine
	return l.mem[i : i+ledgerLine]
}

// read finds the last line. One that is torn was being written when its process died,
// before the activation: it counts for nothing, and the line that it took the place of
// is below the horizon of the one before.
func (l *ledger) read() {
	for i := range uint64(ledgerLines) {
		if b := l.at(i); whole(b) {
			if seq := binary.BigEndian.Uint64(b[8:]); seq >= l.seq {
				l.seq, l.horizon = seq, binary.BigEndian.Uint64(b[16:])
			}
		}
	}
}

func whole(b []byte) bool { return binary.BigEndian.Uint32(b) == crc32.ChecksumIEEE(b[8:]) }

// begin notes that a hand-off is about to be activated.
func (l *ledger) begin(x ledgerRow) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mem == nil {
		return
	}
	l.seq++
	if next := l.at(l.seq + 1); whole(next) {
		l.horizon = max(l.horizon, binary.BigEndian.Uint64(next[24:]))
	}
	be, b := binary.BigEndian, l.at(l.seq)
	clear(b[:8]) // not whole until it is
	be.PutUint64(b[8:], l.seq)
	be.PutUint64(b[16:], l.horizon)
	be.PutUint64(b[24:], x.epoch)
	be.PutUint32(b[32:], x.gen)
	be.PutUint64(b[36:], x.id)
	putEnd(b[44:], x.key.Client)
	putEnd(b[62:], x.key.VIP)
	b[4] = byte(ledgerBegun)
	be.PutUint32(b, crc32.ChecksumIEEE(b[8:]))
}

func putEnd(b []byte, a netip.AddrPort) {
	ip := a.Addr().As16()
	copy(b, ip[:])
	binary.BigEndian.PutUint16(b[16:], a.Port())
}

// end notes what became of it.
func (l *ledger) end(k frame.Key, epoch uint64, gen uint32, s ledgerState) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.find(k, epoch, gen); b != nil {
		b[4] = byte(s)
	}
}

// find looks for a line, the newest first: it is hardly ever far.
func (l *ledger) find(k frame.Key, epoch uint64, gen uint32) []byte {
	var ends [36]byte
	putEnd(ends[:], k.Client)
	putEnd(ends[18:], k.VIP)
	return l.search(func(b []byte) bool {
		return binary.BigEndian.Uint32(b[32:]) == gen && binary.BigEndian.Uint64(b[24:]) == epoch && bytes.Equal(b[44:80], ends[:])
	})
}

func (l *ledger) search(is func([]byte) bool) []byte {
	if l.mem == nil {
		return nil
	}
	for i := range uint64(min(l.seq, ledgerLines)) {
		if b := l.at(l.seq - i); is(b) && whole(b) {
			return b
		}
	}
	return nil
}

// took reports whether exactly this hand-off was activated here, or may have been.
func (l *ledger) took(f frame.Frame) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.find(f.Key, f.Epoch, f.Generation)
	return b != nil && ledgerState(b[4]) != ledgerNever
}

// denies reports whether the hand-off that a Commit is about was certainly never activated
// here: its Ready was of this file, which would remember it. Whoever asks has made sure
// that it is not under way.
func (l *ledger) denies(f frame.Frame) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mem == nil || !bytes.Equal(f.Payload, l.mark[:]) {
		return false
	}
	if b := l.find(f.Key, f.Epoch, f.Generation); b != nil {
		return ledgerState(b[4]) == ledgerNever
	}
	return f.Epoch > l.horizon
}

// byID returns the hand-off of an offer to a local server.
func (l *ledger) byID(id uint64) (x ledgerRow) {
	if l == nil || id == 0 {
		return x
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.search(func(b []byte) bool { return binary.BigEndian.Uint64(b[36:]) == id })
	if b == nil {
		return x
	}
	be := binary.BigEndian
	return ledgerRow{key: frame.Key{Client: getEnd(b[44:]), VIP: getEnd(b[62:])}, epoch: be.Uint64(b[24:]), gen: be.Uint32(b[32:]), id: id, state: ledgerState(b[4])}
}

func getEnd(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[16:]))
}

// word is the mark for a Ready; nil: none.
func (l *ledger) word() []byte {
	if l == nil {
		return nil
	}
	return l.mark[:]
}
