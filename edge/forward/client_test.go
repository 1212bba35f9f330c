//go:build e2e

package forward

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soak asks for the long form of a test.
func soak() bool { return os.Getenv("RHUMB_SOAK") == "1" }

// gate lets a transfer go on up to a mark. So a test moves routes in the middle
// of transfers, and none can end before all moves are made, however the
// processes are scheduled.
type gate struct {
	mu       sync.Mutex
	changed  *sync.Cond
	now, may int64
	err      error
	ended    bool
}

func newGate(may int64) *gate {
	g := &gate{may: may}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// pass waits until more may go and returns how much.
func (g *gate) pass() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.now >= g.may {
		g.changed.Wait()
	}
	return g.may - g.now
}

// went tells that n octets more went.
func (g *gate) went(n int) {
	g.mu.Lock()
	g.now += int64(n)
	g.mu.Unlock()
	g.changed.Broadcast()
}

// open lets the transfer go on to a mark.
func (g *gate) open(may int64) {
	g.mu.Lock()
	g.may = max(g.may, may)
	g.mu.Unlock()
	g.changed.Broadcast()
}

func (g *gate) end(err error) {
	g.mu.Lock()
	g.err, g.ended = err, true
	g.mu.Unlock()
	g.changed.Broadcast()
}

// reached waits until so many octets went, or the transfer ended.
func (g *gate) reached(t *testing.T, size int64) {
	t.Helper()
	if now, _, err := g.until(func() bool { return g.now >= size }); err != nil || now < size {
		t.Fatalf("the transfer stands at %d octets of the %d awaited: %v", now, size, err)
	}
}

// wait returns how the transfer ended.
func (g *gate) wait() error {
	_, _, err := g.until(func() bool { return false })
	return err
}

// until waits for a condition or the end, as long as octets go in patience.
func (g *gate) until(cond func() bool) (now int64, ended bool, err error) {
	late := false
	g.mu.Lock()
	defer g.mu.Unlock()
	for !cond() && !g.ended {
		was := g.now
		bound := time.AfterFunc(patience, func() {
			g.mu.Lock()
			late = late || g.now == was
			g.mu.Unlock()
			g.changed.Broadcast()
		})
		for g.now == was && !late && !g.ended && !cond() {
			g.changed.Wait()
		}
		bound.Stop()
		if late {
			return g.now, false, fmt.Errorf("nothing moved for %v: %d octets went", patience, g.now)
		}
	}
	return g.now, g.ended, g.err
}

// dialSmall connects with small buffers: what is under way stays far below the
// size of a file.
func (l *lab) dialSmall(t *testing.T, vip string) net.Conn {
	t.Helper()
	var conn net.Conn
	err := l.client.do(func() (err error) {
		d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 128<<10)
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 128<<10)
			})
		}}
		conn, err = d.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// startDownload fetches the big file up to a mark, and checks all of it.
func (l *lab) startDownload(t *testing.T, vip string, may int64) *gate {
	t.Helper()
	conn, g := l.dialSmall(t, vip), newGate(may)
	go func() {
		err := l.fetch(conn, g)
		_ = conn.Close()
		g.end(err)
	}()
	t.Cleanup(func() { g.open(l.size) })
	return g
}

func (l *lab) fetch(conn net.Conn, g *gate) error {
	if _, err := io.WriteString(conn, "GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 4096), nil)
	if err != nil {
		return err
	}
	sum, buf := sha256.New(), make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(buf[:min(int64(len(buf)), g.pass())])
		sum.Write(buf[:n])
		g.went(n)
		if err == io.EOF || err == nil && g.now >= l.size {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d octets: %w", g.now, err)
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != l.sum {
		return fmt.Errorf("%d octets with the wrong sum", g.now)
	}
	return nil
}

// startUpload puts the big file, up to a mark; the server's copy is checked.
func (l *lab) startUpload(t *testing.T, vip string, may int64) *gate {
	t.Helper()
	conn, g := l.dialSmall(t, vip), newGate(may)
	go func() {
		err := l.put(conn, g)
		_ = conn.Close()
		g.end(err)
	}()
	t.Cleanup(func() { g.open(l.size) })
	return g
}

func (l *lab) put(conn net.Conn, g *gate) error {
	file, err := os.Open(filepath.Join(l.dir, "big.bin"))
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := fmt.Fprintf(conn, "PUT /put/up.bin HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", l.size); err != nil {
		return err
	}
	for g.now < l.size {
		n, err := io.CopyN(conn, file, min(64<<10, g.pass(), l.size-g.now))
		g.went(int(n))
		if err != nil {
			return fmt.Errorf("after %d octets: %w", g.now, err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return fmt.Errorf("response: %w", err)
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("response: %s", resp.Status)
	}
	return l.same(filepath.Join(l.dir, "put", "up.bin"))
}

// same tells whether a file is a copy of the big one, and removes it.
func (l *lab) same(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_ = os.Remove(path)
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != l.sum {
		return fmt.Errorf("%s has %d octets with the wrong sum", filepath.Base(path), len(b))
	}
	return nil
}

// flipUnder moves the route between the sites in the middle of transfers: all
// have come to one mark and are on the way to the next. It ends with the route
// at B and the transfers free to end.
func (l *lab) flipUnder(t *testing.T, flips int, transfers []*gate) {
	t.Helper()
	mark := func(i int) int64 { return l.size * int64(i) / int64(flips+2) }
	for i := range flips {
		for _, g := range transfers {
			g.open(mark(i + 2))
		}
		for _, g := range transfers {
			g.reached(t, mark(i+1))
		}
		l.routeTo(t, []*site{l.b, l.a}[i%2])
	}
	l.routeTo(t, l.b)
	for _, g := range transfers {
		g.open(l.size)
	}
}

// get asks for a short page over a connection that stays open.
func get(t *testing.T, conn net.Conn, path string) string {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Errorf("request: %v", err)
		return ""
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("response: %v", err)
		return ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("response: %v", err)
	}
	return string(body)
}
