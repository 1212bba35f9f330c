//go:build e2e

package authdns

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// askers ask at a rate and count who is answered.
type askers struct {
	lanes []*askerLane
	// heard is told of each thousand replies to a lane.
	heard chan struct{}
	wg    sync.WaitGroup
}

// askerLane is one socket; an ID is free again long after its reply may come.
type askerLane struct {
	conn     net.Conn
	answered [1 << 16]bool
	good     atomic.Int64
}

// waiting is how many queries of a lane may wait: together they fill half of the room that
// the server's socket has. A restart on a busy machine takes longer than that lasts, and
// what does not fit is lost to the kernel.
const waiting = 10_000

// newAskers ask for www at so many queries a second for some time, spread over four
// sockets, each query at its time whatever is answered, as long as they have room.
func newAskers(m *mortal, rate int, last time.Duration) *askers {
	m.t.Helper()
	const sockets = 4
	each := rate / sockets * int(last/time.Second)
	a := &askers{heard: make(chan struct{}, sockets*each/1000)}
	if each > 1<<16 {
		m.t.Fatalf("%d queries of a socket need more IDs than there are", each)
	}
	query := ask(m.t, "www.demo.test. A")
	for range sockets {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(m.addr))
		if err != nil {
			m.t.Fatal(err)
		}
		if raw, err := conn.SyscallConn(); err == nil {
			makeRoom(raw, 16<<20) // what waited in a restart is answered all at once
		}
		l := &askerLane{conn: conn}
		a.lanes = append(a.lanes, l)
		query := append([]byte(nil), query...)
		a.wg.Go(func() { l.send(query, each, last) })
		a.wg.Go(func() { l.read(each, a.heard) })
	}
	return a
}

func (l *askerLane) send(query []byte, n int, last time.Duration) {
	began := time.Now()
	for sent := 0; sent < n; {
		for due := min(int(float64(n)*float64(time.Since(began))/float64(last)), n, int(l.good.Load())+waiting); sent < due; sent++ {
			binary.BigEndian.PutUint16(query, uint16(sent))
			l.conn.Write(query)
		}
		time.Sleep(time.Millisecond) // the pace
	}
}

func (l *askerLane) read(n int, heard chan<- struct{}) {
	buf := make([]byte, 1500)
	for l.good.Load() < int64(n) {
		l.conn.SetReadDeadline(time.Now().Add(20 * time.Second)) // a life takes less to begin
		size, err := l.conn.Read(buf)
		if err != nil {
			return
		}
		if id := binary.BigEndian.Uint16(buf); size > headerLen && buf[3]&15 == 0 && buf[7] == 1 && !l.answered[id] {
			l.answered[id] = true
			if l.good.Add(1)%1000 == 0 {
				heard <- struct{}{} // it has room for all
			}
		}
	}
}

// lost waits for the last reply and tells how many there were not.
func (a *askers) lost(n int) int {
	a.wg.Wait()
	for _, l := range a.lanes {
		l.conn.Close()
		n -= int(l.good.Load())
	}
	return n
}

// TestQueryOfDeathUnderLoad: two processes end over a query while others ask 20,000 times
// a second. The third refuses it. Of the others' queries those at most are lost which
// were read along with it.
func TestQueryOfDeathUnderLoad(t *testing.T) {
	const rate, last = 20_000, 6 * time.Second
	m := newMortal(t)
	first := m.dial("www.demo.test. A")
	m.life()
	if _, err := first.Read(make([]byte, 1500)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	asked := newAskers(m, rate, last)
	for range 2 {
		for range 8 { // thousand queries of load
			select {
			case <-asked.heard:
			case <-time.After(time.Minute):
				t.Fatal("the load is not answered")
			}
		}
		killer := m.dial(questionOfDeath)
		m.dies()
		killer.Close()
		m.life()
	}
	killer := m.dial(questionOfDeath)
	defer killer.Close()
	killer.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 1500)
	if n, err := killer.Read(buf); err != nil || n < headerLen || buf[3]&15 != 5 {
		t.Errorf("the query of death gets % x, %v; want REFUSED\n%s", buf[:n], err, &m.out)
	}
	n := rate * int(last/time.Second)
	lost := asked.lost(n)
	t.Logf("two deaths under %d queries: %d lost", n, lost)
	if most := 2 * (batchSize - 1); lost > most {
		t.Errorf("%d of %d queries lost, want at most %d", lost, n, most)
	}
}
