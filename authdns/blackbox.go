package authdns

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"rhumb/authdns/wire"
)

// blackbox is a worker's receive buffers in a file that is mapped and shared: what
// lies there, and which of it is being answered, outlives the process, whatever
// ends it, and costs no more than memory does. It survives no crash of the machine,
// nor need it.
type blackbox struct{ mem []byte }

// A file begins with a page of which the first word is the query at hand: its
// place, counted from 1, in the upper half, its length in the lower.
const (
	boxHeader = 4096
	boxSize   = boxHeader + batchSize*wire.InSize
	boxPrefix = "recv-"
	// suspectsFile lists the kinds of query that were at hand when a process ended.
	suspectsFile = "suspects.json"
	// suspectFor is how long one is remembered.
	suspectFor = time.Hour
)

// blackbox makes that of a worker; nil where none is kept, or can be.
func (s *Server) blackbox(worker int) *blackbox {
	if s.shield.crashes == "" {
		return nil
	}
	b, err := openBlackbox(filepath.Join(s.shield.crashes, fmt.Sprint(boxPrefix, worker)))
	if err != nil {
		s.log.Warn("a query that ends this process will not be known afterwards", "err", err)
		return nil
	}
	return b
}

// openBlackbox makes a file anew and maps it. The mapping stays until the process
// ends: the kernel may write to it as long as the socket is open.
func openBlackbox(file string) (*blackbox, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Blocks are taken now: on a full disk a mapping without them kills who writes.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, boxSize); err != nil {
		return nil, fmt.Errorf("allocate %s: %w", file, err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, boxSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", file, err)
	}
	return &blackbox{mem}, nil
}

// buffers are for the datagrams of a batch.
func (b *blackbox) buffers() []byte { return b.mem[boxHeader:] }

// hand is the word that says what is at hand.
func (b *blackbox) hand() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&b.mem[0])) }

// begin notes that a datagram of n octets is being answered.
func (b *blackbox) begin(place, n int) {
	if b != nil {
		b.hand().Store(uint64(place+1)<<32 | uint64(n))
	}
}

// end notes that none is.
func (b *blackbox) end() {
	if b != nil {
		b.hand().Store(0)
	}
}

// atHand returns the query that was being answered when a file was left behind.
func atHand(file []byte) []byte {
	if len(file) != boxSize {
		return nil
	}
	word := binary.NativeEndian.Uint64(file)
	place, n := int(word>>32), int(word&0xffffffff)
	if place < 1 || place > batchSize || n > wire.InSize {
		return nil
	}
	return file[boxHeader+(place-1)*wire.InSize:][:n]
}

// suspect is a kind of query that was at hand when a process ended, and how often.
type suspect struct {
	Suffix []byte // octets are no text
	Type   uint16
	Shape  uint32
	Times  int
	Last   time.Time
}

func (x *suspect) kind() queryKind { return queryKind{string(x.Suffix), x.Type, x.Shape} }

// salvage looks at what the process before has left. Whatever was at hand when it
// ended is a suspect: it may be innocent, if the process was killed or the memory
// ran out. What was at hand twice is put into quarantine.
func (s *Server) salvage(dir string) {
	if dir == "" {
		return
	}
	if err := s.salvageFrom(dir); err != nil {
		s.log.Warn("what a crash may have left cannot be read", "err", err)
	}
	s.shield.crashes = dir
}

func (s *Server) salvageFrom(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	suspects, err := readSuspects(filepath.Join(dir, suspectsFile))
	if err != nil {
		s.log.Warn("suspects of earlier crashes are forgotten", "err", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	now, changed := s.now(), false
	suspects = slices.DeleteFunc(suspects, func(x suspect) bool { return now.Sub(x.Last) > suspectFor })
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), boxPrefix) {
			continue
		}
		file, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if in := atHand(file); in != nil {
			suspects, changed = s.accuse(suspects, glance(in).kind(in), now), true
		}
		if err := errors.Join(err, os.Remove(filepath.Join(dir, e.Name()))); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return writeSuspects(filepath.Join(dir, suspectsFile), suspects)
}

// accuse counts a kind that was at hand, and confines it from the second time on.
func (s *Server) accuse(suspects []suspect, kind queryKind, now time.Time) []suspect {
	at := slices.IndexFunc(suspects, func(x suspect) bool { return x.kind() == kind })
	if at < 0 {
		at, suspects = len(suspects), append(suspects, suspect{Suffix: []byte(kind.suffix), Type: kind.qtype, Shape: kind.shape})
	}
	x := &suspects[at]
	x.Times, x.Last = x.Times+1, now
	if x.Times < 2 {
		s.log.Warn("the last process ended over a query: it is suspected", "query", kind.String())
	}
	for i := 2; i <= x.Times; i++ { // as long as if this process had lived all the time
		if _, held := s.shield.quarantine.confine(kind, now); i == x.Times {
			s.log.Error("processes have ended over this kind of query: it is in quarantine", "query", kind.String(), "times", x.Times, "for", held)
		}
	}
	return suspects
}

func readSuspects(file string) (out []suspect, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	return out, err
}

// writeSuspects replaces the file whole.
func writeSuspects(file string, suspects []suspect) error {
	data, err := json.Marshal(suspects)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".tmp", file)
}
