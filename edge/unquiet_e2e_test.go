//go:build e2e

package edge

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/edge/frame"
	"rhumb/edge/silence"
)

// openSilence opens the silence of a network namespace of its own, twice: as a process finds
// what one before it left.
func openSilence(t *testing.T, f silence.Flow) *silence.Silence {
	t.Helper()
	var was, is *silence.Silence
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			was, _, err = silence.Open(discard)
		}
		if err == nil {
			ctx, cancel := context.WithCancel(t.Context())
			t.Cleanup(cancel)
			go was.Run(ctx)
			was.Add(f)
			for end := time.Now().Add(20 * time.Second); was.Len() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			is, _, err = silence.Open(discard)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return is
}

// TestUnquietOfAnEarlierProcess: a session that came may be silent already, by the word of
// the process before, though nobody here has asked for it; its end must be heard.
func TestUnquietOfAnEarlierProcess(t *testing.T) {
	key := frame.Key{Client: netip.MustParseAddrPort("198.51.100.2:40001"), VIP: netip.MustParseAddrPort("192.0.2.10:443")}
	q := openSilence(t, flowOf(key))
	if q.Len() != 1 {
		t.Fatalf("%d flows are silent, want 1", q.Len())
	}
	h := &hush{}
	h.kernel.Store(q)
	s := &session{key: key}
	s.quiet, s.came = h, true
	if s.unquiet(); q.Len() != 0 {
		t.Errorf("%d flows are silent after the end, want none", q.Len())
	}
}
