package edge

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"rhumb/edge/frame"
)

// TestLedger: what was activated is known to the next process, what was not is denied
// with certainty, and what is forgotten is neither.
func TestLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "taken")
	open := func(boot string) *ledger {
		t.Helper()
		l, err := openLedger(path, boot)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open("boot")
	key := func(n int) frame.Key {
		k := guestKey()
		k.Client = netip.AddrPortFrom(k.Client.Addr(), uint16(n))
		return k
	}
	six := frame.Key{Client: netip.MustParseAddrPort("[2001:db8::7]:9"), VIP: netip.MustParseAddrPort("[2001:db8::1]:443")}
	about := func(k frame.Key, epoch uint64, mark []byte) frame.Frame {
		return frame.Frame{Key: k, Epoch: epoch, Generation: 3, Payload: mark}
	}
	mark := append([]byte(nil), l.word()...)
	l.begin(ledgerRow{key: key(1), epoch: 10, gen: 3, id: 77})
	l.begin(ledgerRow{key: six, epoch: 12, gen: 3, id: 78})
	l.end(six, 12, 3, ledgerActive)
	l.begin(ledgerRow{key: key(2), epoch: 11, gen: 3, id: 79})
	l.end(key(2), 11, 3, ledgerNever)
	l.begin(ledgerRow{key: key(4), epoch: 9, gen: 3}) // of ours: no server was offered it
	for range 2 {
		for name, tc := range map[string]struct {
			f            frame.Frame
			took, denies bool
		}{
			"begun":          {about(key(1), 10, mark), true, false},
			"active":         {about(six, 12, mark), true, false},
			"never":          {about(key(2), 11, mark), false, true},
			"not there":      {about(key(3), 13, mark), false, true},
			"another offer":  {about(key(1), 11, mark), false, true},
			"of another one": {about(key(3), 13, []byte("12345678")), false, false},
			"of an old site": {about(key(3), 13, nil), false, false},
		} {
			if took, denies := l.took(tc.f), l.denies(tc.f); took != tc.took || denies != tc.denies {
				t.Errorf("%s: taken %t, denied %t, want %t, %t", name, took, denies, tc.took, tc.denies)
			}
		}
		if x := l.byID(78); x.state != ledgerActive || x.key != six || x.epoch != 12 || x.gen != 3 {
			t.Errorf("by its number: %+v", x)
		}
		if x := l.byID(0); x.state != ledgerNone {
			t.Errorf("of no offer: %+v", x)
		}
		if x := l.byID(80); x.state != ledgerNone {
			t.Errorf("of no number: %+v", x)
		}
		if _, err := openLedger(path, "boot"); !errors.Is(err, errLedgerUsed) {
			t.Errorf("two processes: %v", err)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		l = open("boot") // the next process
	}
	for i := range uint64(ledgerLines) {
		l.begin(ledgerRow{key: key(5), epoch: 100 + i, gen: 3})
	}
	if l.took(about(six, 12, mark)) || l.denies(about(six, 12, mark)) {
		t.Error("what is forgotten is not unknown")
	}
	if f := about(key(3), 100+2*ledgerLines, mark); !l.denies(f) {
		t.Error("what is above the horizon is not denied")
	}
	if l.denies(about(key(3), 100, mark)) {
		t.Error("what is about to be overwritten lies above the horizon")
	}
	// A line that was being written when its process died.
	l.begin(ledgerRow{key: key(6), epoch: 5 * ledgerLines, gen: 3})
	l.at(l.seq)[40]++
	horizon := l.horizon
	l.close()
	l = open("boot")
	if l.took(about(key(6), 5*ledgerLines, mark)) || l.horizon > horizon || l.horizon < 100 {
		t.Errorf("torn: taken %t, horizon %d", l.took(about(key(6), 5*ledgerLines, mark)), l.horizon)
	}
	l.close()
	l = open("another")
	defer l.close()
	if l.denies(about(key(3), 1<<60, mark)) || l.seq != 0 {
		t.Error("after a boot it is the same ledger")
	}
}

// TestNoLedger remembers nothing and denies nothing.
func TestNoLedger(t *testing.T) {
	l, err := openLedger("", "boot")
	if err != nil || l != nil {
		t.Fatal(l, err)
	}
	l.begin(ledgerRow{key: guestKey()})
	l.end(guestKey(), 0, 0, ledgerActive)
	if f := (frame.Frame{Key: guestKey()}); l.took(f) || l.denies(f) || l.word() != nil || l.byID(1).state != ledgerNone || l.close() != nil {
		t.Error("nothing is remembered, and something said")
	}
}

// FuzzLedger: whatever stands in the file, it is read, and written on.
func FuzzLedger(f *testing.F) {
	f.Add([]byte("x"), uint32(0))
	f.Add(make([]byte, ledgerLine), uint32(ledgerHead))
	f.Fuzz(func(t *testing.T, b []byte, at uint32) {
		path := filepath.Join(t.TempDir(), "taken")
		l, err := openLedger(path, "boot")
		if err != nil {
			t.Fatal(err)
		}
		l.begin(ledgerRow{key: guestKey(), epoch: 7, gen: 3, id: 4})
		l.close()
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			_, err = file.WriteAt(b, int64(at%ledgerSize))
			file.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if l, err = openLedger(path, "boot"); err != nil {
			t.Fatal(err)
		}
		defer l.close()
		next := frame.Frame{Key: guestKey(), Epoch: 9, Generation: 4}
		l.begin(ledgerRow{key: next.Key, epoch: 9, gen: 4, id: 5})
		if !l.took(next) || l.byID(5).key != next.Key {
			t.Error("what is written is not read")
		}
	})
}
