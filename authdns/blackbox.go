package authdns

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
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
type blackbox struct {
	mem []byte
	// file is locked for as long as the process lives, so that one which starts beside
	// it does not take what is at hand here for what an end has left.
	file *os.File
	// taken are the places that TCP has claimed, a bit for each.
	taken atomic.Uint32
}

// A file begins with a page of words which say what is at hand: a place, counted
// from 1, in the upper half, a length in the lower. A worker, which answers one
// query after another, writes the first of them; for TCP each place has its own.
const (
	boxHeader = 4096
	boxSize   = boxHeader + batchSize*wire.InSize
	boxPrefix = "recv-"
	// suspectsFile lists the kinds of query that were at hand when a process ended.
	suspectsFile = "suspects.json"
	// suspectFor is how long one is remembered.
	suspectFor = time.Hour
)

// blackbox makes one for a worker, or the one of TCP; nil where none is kept, or can be.
func (s *Server) blackbox() *blackbox {
	if s.shield.crashes == "" {
		return nil
	}
	b, err := openBlackbox(s.shield.crashes, s.life())
	if err != nil {
		s.log.Warn("a query that ends this process will not be known afterwards", "err", err)
		return nil
	}
	return b
}

// openBlackbox makes a file of a life in a directory and maps it. The mapping stays until
// the process ends: the kernel may write to it as long as the socket is open.
func openBlackbox(dir, life string) (*blackbox, error) {
	f, err := os.CreateTemp(dir, boxPrefix+life+"-")
	if err != nil {
		return nil, err
	}
	b := &blackbox{file: f}
	if b.mem, err = mapBox(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return b, nil
}

func mapBox(f *os.File) ([]byte, error) {
	if err := lockBox(f); err != nil {
		return nil, err
	}
	// Blocks are taken now: on a full disk a mapping without them kills who writes.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, boxSize); err != nil {
		return nil, fmt.Errorf("allocate: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, boxSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	return mem, nil
}

// lockBox fails with EWOULDBLOCK while the process lives whose box it is.
func lockBox(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// buffers are for the datagrams of a batch.
func (b *blackbox) buffers() []byte { return b.mem[boxHeader:] }

// hand is a word that says what is at hand.
func (b *blackbox) hand(word int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&b.mem[8*word]))
}

// begin notes that a datagram of n octets is being answered.
func (b *blackbox) begin(place, n int) {
	if b != nil {
		b.hand(0).Store(uint64(place+1)<<32 | uint64(n))
	}
}

// end notes that none is.
func (b *blackbox) end() {
	if b != nil {
		b.hand(0).Store(0)
	}
}

// keep copies a query that came over TCP, until release of the place returned. With
// all places taken it keeps nothing: by then the others tell enough.
func (b *blackbox) keep(query []byte) (place int) {
	if b == nil {
		return -1
	}
	for {
		taken := b.taken.Load()
		place = bits.TrailingZeros32(^taken)
		if place >= batchSize {
			return -1
		}
		if b.taken.CompareAndSwap(taken, taken|1<<place) {
			n := copy(b.mem[boxHeader+place*wire.InSize:][:wire.InSize], query)
			b.hand(place).Store(uint64(place+1)<<32 | uint64(n))
			return place
		}
	}
}

func (b *blackbox) release(place int) {
	if place < 0 {
		return
	}
	b.hand(place).Store(0)
	b.taken.And(^(uint32(1) << place))
}

// atHand returns the queries that were being answered when a file was left behind.
func atHand(file []byte) (out [][]byte) {
	if len(file) != boxSize {
		return nil
	}
	for word := range batchSize {
		w := binary.NativeEndian.Uint64(file[8*word:])
		place, n := int(w>>32), int(w&0xffffffff)
		if place >= 1 && place <= batchSize && n <= wire.InSize {
			out = append(out, file[boxHeader+(place-1)*wire.InSize:][:n])
		}
	}
	return out
}

// suspect is a kind of query that was at hand when a process ended itself, and how often,
// and how often when one was killed.
type suspect struct {
	Suffix []byte // octets are no text
	Type   uint16
	Shape  uint32
	Times  int
	Kills  int
	Last   time.Time
}

// weight is how many crashes all that amounts to.
func (x *suspect) weight() int { return x.Times + x.Kills/killsForCrash }

// until is when a suspect that is in quarantine is let go.
func (x *suspect) until() time.Time {
	return x.Last.Add(quarantined(x.weight() - 2))
}

func (x *suspect) kind() queryKind { return queryKind{string(x.Suffix), x.Type, x.Shape} }

// salvage looks at what the process before has left. Whatever was at hand when it ended
// is a suspect, less so if it was killed. What was at hand twice is put into quarantine,
// and so is what was there when that process ended.
func (s *Server) salvage(dir string) {
	if dir == "" {
		return
	}
	if err := s.salvageFrom(dir); err != nil {
		s.log.Warn("what a crash may have left cannot be read", "err", err)
	}
	s.shield.crashes, s.shield.crashed = dir, lastCrash(dir)
	s.recallKnown()
	if err := s.openWords(dir); err != nil {
		s.log.Warn("a crash will look like a kill", "err", err)
	}
	s.shield.tcp = s.blackbox()
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
	now := s.now()
	suspects = slices.DeleteFunc(suspects, func(x suspect) bool { return now.Sub(x.Last) > suspectFor && !now.Before(x.until()) })
	for i := range suspects { // as if this process had lived all the time
		for range suspects[i].weight() - 1 {
			s.shield.quarantine.confine(suspects[i].kind(), suspects[i].Last)
		}
	}
	spoke, err := s.takeWords(dir, entries)
	if err != nil {
		return err
	}
	changed := false
	for _, e := range entries {
		life, ok := strings.CutPrefix(e.Name(), boxPrefix)
		if !ok {
			continue
		}
		life, _, _ = strings.Cut(life, "-")
		crashed, known := spoke[life]
		left, err := takeBox(filepath.Join(dir, e.Name()))
		for _, in := range left {
			suspects, changed = s.accuse(suspects, glance(in).kind(in), crashed || !known, now), true
		}
		if err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return writeSuspects(filepath.Join(dir, suspectsFile), suspects)
}

// takeBox removes a file that was left behind, and returns what was at hand. That of
// a process which lives stays; two units of one machine do not share a directory, but
// a process and its successor do for a while.
func takeBox(name string) (left [][]byte, err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := lockBox(f); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	return atHand(data), errors.Join(err, os.Remove(name))
}

// accuse counts a kind that was at hand, and confines it from the weight of two crashes on.
func (s *Server) accuse(suspects []suspect, kind queryKind, crashed bool, now time.Time) []suspect {
	suspects, x := find(suspects, kind)
	before := x.weight()
	x.Last = now
	if crashed {
		x.Times++
	} else {
		x.Kills++
	}
	switch {
	case x.weight() == before: // killed, and not often
		s.log.Info("the last process was killed over a query, which may be innocent", "query", kind.String(), "kills", x.Kills)
	case x.weight() < 2:
		s.log.Warn("the last process ended over a query: it is suspected", "query", kind.String())
	default:
		_, held := s.shield.quarantine.confine(kind, now)
		s.log.Error("processes have ended over this kind of query: it is in quarantine", "query", kind.String(), "times", x.Times, "kills", x.Kills, "for", held)
	}
	return suspects
}

// find returns a kind among suspects, which it joins if it is not one of them.
func find(suspects []suspect, kind queryKind) ([]suspect, *suspect) {
	at := slices.IndexFunc(suspects, func(x suspect) bool { return x.kind() == kind })
	if at < 0 {
		at, suspects = len(suspects), append(suspects, suspect{Suffix: []byte(kind.suffix), Type: kind.qtype, Shape: kind.shape})
	}
	return suspects, &suspects[at]
}

// remember writes down a kind that is in quarantine, so that the next process holds it
// too: a restart or an upgrade must not let it in again.
func (s *Server) remember(kind queryKind, now time.Time) {
	if s.shield.crashes == "" {
		return
	}
	s.shield.remembering.Lock()
	defer s.shield.remembering.Unlock()
	file := filepath.Join(s.shield.crashes, suspectsFile)
	suspects, err := readSuspects(file)
	if err == nil && len(suspects) < quarantineKinds {
		var x *suspect
		suspects, x = find(suspects, kind)
		x.Times, x.Last = max(x.Times+1, 2), now // a panic leaves no doubt
		err = writeSuspects(file, suspects)
	}
	if err != nil {
		s.log.Warn("the next process will not know what is in quarantine", "err", err)
	}
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
