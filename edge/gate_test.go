package edge

import (
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func none() {}

func TestGateStops(t *testing.T) {
	for _, goOn := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var g gate
			poke := make(chan struct{})
			passed := make(chan bool)
			go func() {
				<-poke // blocked in a read
				passed <- g.pass()
			}()
			if !g.stop(time.Second, func() { close(poke) }, none) {
				t.Fatal("the owner did not come")
			}
			ran := false
			g.deadline(func() { ran = true })
			if ran {
				t.Error("a deadline was set while a stop is wanted")
			}
			g.resume(goOn)
			if got := <-passed; got != goOn {
				t.Errorf("pass is %t, want %t", got, goOn)
			}
			if goOn && !g.pass() {
				t.Error("the gate stays shut")
			}
		})
	}
}

// TestGateLate: an owner that does not come in time is let alone, and the
// next stop works.
func TestGateLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		undone := false
		passed := make(chan bool)
		go func() {
			time.Sleep(2 * time.Second) // a slow disk
			passed <- g.pass()
			time.Sleep(time.Second)
			passed <- g.pass()
		}()
		if g.stop(time.Second, none, func() { undone = true }) || !undone {
			t.Fatal("stopped an owner that was away")
		}
		if !<-passed {
			t.Fatal("the owner was sent away")
		}
		if !g.stop(5*time.Second, none, none) {
			t.Fatal("the second stop failed")
		}
		g.resume(false)
		if <-passed {
			t.Fatal("the owner goes on")
		}
	})
}

// TestRelease: claimants that follow each other closely each find the owner.
func TestRelease(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := &session{conn: c.(*net.TCPConn)}
	s.turn.Store(idleTurn(1))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s.gate.pass() {
			s.gate.deadline(func() { s.conn.SetReadDeadline(time.Now().Add(time.Minute)) })
			s.conn.Read(make([]byte, 1))
		}
	}()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for done := 0; done < 200; {
				if !s.claim() {
					runtime.Gosched()
					continue
				}
				if !s.stopWithin(time.Minute) { // the product's patience is shorter than a busy machine's pauses
					t.Error("the owner did not come")
					s.state.Store(int32(Active))
					return
				}
				s.release()
				done++
			}
		})
	}
	wg.Wait()
	for !s.claim() || !s.stopWithin(time.Minute) {
		runtime.Gosched()
	}
	s.gate.resume(false)
	<-ended
}
