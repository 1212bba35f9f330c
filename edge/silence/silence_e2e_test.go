//go:build e2e

package silence

import (
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// apart runs f in a network namespace of its own.
func apart(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func opened(t *testing.T) (*Silence, []Flow) {
	t.Helper()
	s, left, err := Open(slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	return s, left
}

// enters makes flows quiet.
func (s *Silence) enters(flows []Flow) {
	for _, f := range flows {
		s.Add(f)
	}
	s.enter()
	s.enter()
}

func manyFlows(n int) (all []Flow) {
	for i := range n {
		all = append(all, Flow{netip.MustParseAddrPort("192.0.2.10:443"), netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 14)}), uint16(i&0x3fff)+1)})
	}
	return all
}

// TestLeft: a process finds what one before it has left quiet, and what that gave back is
// not among it; what nobody has renewed in time is nobody's.
func TestLeft(t *testing.T) {
	apart(t, func() {
		s, left := opened(t)
		if len(left) != 0 {
			t.Errorf("%d flows left by nobody", len(left))
		}
		flows := append(testFlows(), manyFlows(3)...)
		s.enters(flows)
		s.Remove(flows[0])
		s.renew()
		s.nft.close() // the process dies
		s, left = opened(t)
		if len(left) != len(flows)-1 || s.Len() != len(left) {
			t.Errorf("%d flows left, %d quiet, want %d", len(left), s.Len(), len(flows)-1)
		}
		s.nft.close()
		time.Sleep(Life + Life/4) // measured
		s, left = opened(t)
		if len(left) != 0 || s.Len() != 0 {
			t.Errorf("%d flows left that nobody renewed", len(left))
		}
		if all, err := s.nft.conn.GetSetElements(s.nft.v4); err != nil || len(all) != 0 {
			t.Errorf("%d elements are still there: %v", len(all), err)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// TestFlushed: who removes the table ends the silence for half a second.
func TestFlushed(t *testing.T) {
	apart(t, func() {
		s, _ := opened(t)
		s.enters(manyFlows(5))
		other, err := openKernel()
		if err == nil {
			err = other.destroy()
		}
		if err != nil {
			t.Error(err)
			return
		}
		s.renew()
		s.nft.close()
		if _, left := opened(t); len(left) != 5 {
			t.Errorf("%d flows after the table was removed, want 5", len(left))
		}
	})
}

// openApart opens in a network namespace of the benchmark's own.
func openApart(b *testing.B) *Silence {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	s, _, err := Open(slog.Default())
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkRenew is what 10,000 quiet flows cost each half second, and each 20 s.
func BenchmarkRenew(b *testing.B) {
	s := openApart(b)
	s.enters(manyFlows(10_000))
	for _, all := range []bool{false, true} {
		name := map[bool]string{false: "half a second", true: "20 s"}[all]
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			for b.Loop() {
				if all {
					s.filled = time.Time{}
				}
				s.renew()
			}
		})
	}
}

// BenchmarkLeave is what a flow costs whose session goes elsewhere, among 10,000: one by
// one, and together with the others of a drain.
func BenchmarkLeave(b *testing.B) {
	s := openApart(b)
	all := manyFlows(10_000)
	for _, together := range []bool{false, true} {
		name := map[bool]string{false: "one by one", true: "together"}[together]
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			for i := 0; b.Loop(); i++ {
				if i %= len(all); i == 0 {
					b.StopTimer()
					s.enters(all)
					b.StartTimer()
				}
				if !together {
					s.Remove(all[i])
					continue
				}
				if s.Leave(all[i]); i%500 == 499 {
					s.enter()
				}
			}
			s.enter()
		})
	}
}

// TestLeave: what left together is not in the kernel's set at the next look, and what came
// back meanwhile is.
func TestLeave(t *testing.T) {
	apart(t, func() {
		s, _ := opened(t)
		flows := append(testFlows(), manyFlows(1200)...)
		s.enters(flows)
		for _, f := range flows {
			s.Leave(f)
		}
		s.Add(flows[1])
		s.Add(flows[2])
		s.Leave(flows[2])
		s.Remove(flows[3])
		if n := s.Len(); n != len(flows)-1 {
			t.Errorf("%d quiet before the look, want %d", n, len(flows)-1)
		}
		s.enter()
		all, err := s.nft.list()
		if err != nil || len(all) != 1 || all[0] != flows[1] || s.Len() != 1 || len(s.left) != 0 {
			t.Errorf("the kernel has %d flows, we %d and %d that left: %v", len(all), s.Len(), len(s.left), err)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}
