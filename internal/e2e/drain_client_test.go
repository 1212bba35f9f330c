//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// download is what one client of an agent does: one GET on a connection of its
// own, read at an even pace. A strict client's receive buffer holds about one piece,
// so that the server has to send something in each interval: any silence shows but
// the part of it that hides in one interval. The others have their kernel's buffer.
type download struct {
	Server netip.AddrPort `json:"server"`
	Path   string         `json:"path"`
	Size   int64          `json:"size"`
	Hash   string         `json:"hash"`
	Piece  int            `json:"piece"`
	Pace   time.Duration  `json:"pace"`
	Strict bool           `json:"strict,omitempty"`

	open <-chan struct{} // closed when it may come to its end
}

// Who is near the end and shall not come to it yet reads smaller pieces, at the same pace:
// the last quarter takes eight times as long.
const (
	nearEnd = 4
	smaller = 8
)

// gateOf is closed when a file is there: the test's word, which no network carries, since
// the nodes share their files alone.
func gateOf(ctx context.Context, file string) <-chan struct{} {
	open := make(chan struct{})
	go func() {
		for ctx.Err() == nil && file != "" {
			if _, err := os.Stat(file); err == nil {
				close(open)
				return
			}
			time.Sleep(drainPace)
		}
	}()
	return open
}

// downloaded is what the client saw.
type downloaded struct {
	N        int            `json:"n"` // number of the download
	Strict   bool           `json:"strict,omitempty"`
	Client   netip.AddrPort `json:"client"`
	ServedBy string         `json:"served_by,omitempty"`
	Bytes    int64          `json:"bytes"`
	Took     time.Duration  `json:"took"`
	// Gap is the longest time between two reads that brought something, and GapAt
	// when it ended.
	Gap   time.Duration `json:"gap"`
	GapAt time.Time     `json:"gap_at"`
	// Silences are all that were longer than two intervals.
	Silences []silence `json:"silences,omitempty"`
	End      time.Time `json:"end"`
	Err      string    `json:"err,omitempty"`
}

// silence is the time between two reads that brought something.
type silence struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// downloads runs all of them at once: Ready when each has its first byte, then one
// event each.
func (r *report) downloads(ctx context.Context, all []download, open <-chan struct{}) {
	var begun, done sync.WaitGroup
	begun.Add(len(all))
	for i, d := range all {
		d.open = open
		done.Go(func() {
			// Not all in the same instant: their intervals shall be spread evenly.
			select {
			case <-time.After(time.Duration(i) * 7 * time.Millisecond):
			case <-ctx.Done():
			}
			res := d.run(ctx, sync.OnceFunc(begun.Done))
			res.N = i
			r.send(event{Downloaded: &res})
		})
	}
	begun.Wait()
	r.send(event{Ready: true})
	done.Wait()
}

func (d download) run(ctx context.Context, begun func()) (res downloaded) {
	defer begun()
	at := time.Now()
	err := d.fetch(ctx, &res, begun)
	res.Took, res.End, res.Strict = time.Since(at), time.Now(), d.Strict
	if err != nil {
		res.Err = err.Error()
	}
	return res
}

func (d download) fetch(ctx context.Context, res *downloaded, begun func()) error {
	dialer := net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		if !d.Strict {
			return nil
		}
		var set error
		err := c.Control(func(fd uintptr) {
			set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, d.Piece)
		})
		return errors.Join(err, set)
	}}
	conn, err := dialer.DialContext(ctx, "tcp", d.Server.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	res.Client = conn.LocalAddr().(*net.TCPAddr).AddrPort()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", d.Path, d.Server.Addr()); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, d.Piece)
	if err := d.head(in, res); err != nil {
		return err
	}
	begun()
	return d.body(conn, in, res)
}

// head reads the response's head, which must promise all of the object.
func (d download) head(in *bufio.Reader, res *downloaded) error {
	size := int64(-1)
	for first := true; ; first = false {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("head: %w", err)
		}
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case first && !strings.HasPrefix(line, "HTTP/1.1 200"):
			return errors.New(line)
		case line == "" && size != d.Size:
			return fmt.Errorf("length %d, want %d", size, d.Size)
		case line == "":
			return nil
		case strings.EqualFold(name, "Content-Length"):
			size, _ = strconv.ParseInt(value, 10, 64)
		case strings.EqualFold(name, "X-Served-By"):
			res.ServedBy = value
		}
	}
}

// body reads a piece in each interval. Silence for half a minute is an error: the
// session hangs.
func (d download) body(conn net.Conn, in io.Reader, res *downloaded) error {
	sum := sha256.New()
	next := time.Now()
	last := next
	buf := make([]byte, d.Piece)
	for res.Bytes < d.Size {
		piece := d.piece(res.Bytes)
		for got := 0; got < piece && res.Bytes < d.Size; {
			conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			n, err := in.Read(buf[:piece-got])
			now := time.Now()
			if gap := now.Sub(last); n > 0 && gap > res.Gap {
				res.Gap, res.GapAt = gap, now
			}
			if n > 0 && now.Sub(last) > 2*d.Pace {
				res.Silences = append(res.Silences, silence{last, now})
			}
			if n > 0 {
				last = now
			}
			sum.Write(buf[:n])
			got, res.Bytes = got+n, res.Bytes+int64(n)
			if err != nil {
				return fmt.Errorf("at %d of %d: %w", res.Bytes, d.Size, err)
			}
		}
		next = later(next.Add(d.Pace), time.Now())
		time.Sleep(time.Until(next))
	}
	return d.end(in, sum, res)
}

// piece is how much to read next, after so many bytes.
func (d download) piece(after int64) int {
	select {
	case <-d.open:
	default:
		if d.Size-after < d.Size/nearEnd {
			return d.Piece / smaller
		}
	}
	return d.Piece
}

// end wants nothing behind the object, and the object itself.
func (d download) end(in io.Reader, sum hash.Hash, res *downloaded) error {
	if n, err := io.Copy(io.Discard, in); n != 0 || err != nil {
		return fmt.Errorf("at the end: %d bytes more: %v", n, err)
	}
	if h := hex.EncodeToString(sum.Sum(nil)); h != d.Hash {
		return fmt.Errorf("SHA-256 %s, want %s", h, d.Hash)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// fleetOfClients are downloads under way in several nodes.
type fleetOfClients struct {
	gate string // the file that lets them come to their end

	mu      sync.Mutex
	results map[string][]downloaded // by kind
	done    chan struct{}
}

// kindOf tells the kinds of sessions apart by where they go.
func kindOf(server netip.AddrPort) string {
	kind := "nginx"
	if server.Port() == 80 {
		kind = "content"
	}
	if server.Addr().Is6() {
		kind += "6"
	}
	return kind
}

// download starts the downloads, spread over the nodes, and returns when each has
// its first byte. None ends before release, unless that takes minutes.
func (l *lab) download(nodes []string, all []download) *fleetOfClients {
	l.t.Helper()
	l.gates++
	f := &fleetOfClients{gate: filepath.Join(l.dir, fmt.Sprintf("gate-%d", l.gates)), results: map[string][]downloaded{}, done: make(chan struct{})}
	ready := make(chan struct{}, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		var mine []download
		for k := i; k < len(all); k += len(nodes) {
			mine = append(mine, all[k])
		}
		wg.Go(func() {
			err := l.agent(l.t.Context(), node, order{Downloads: mine, Gate: f.gate}, func(e event) {
				if e.Ready {
					ready <- struct{}{}
				}
				if e.Downloaded != nil {
					f.add(kindOf(mine[e.Downloaded.N].Server), *e.Downloaded)
				}
			})
			if err != nil && l.t.Context().Err() == nil {
				l.t.Errorf("clients in %s: %v", node, err)
			}
		})
	}
	go func() { wg.Wait(); close(f.done) }()
	for range nodes {
		select {
		case <-ready:
		case <-time.After(2 * patience):
			l.t.Fatalf("the clients have not begun after %s", 2*patience)
		}
	}
	return f
}

func (f *fleetOfClients) add(kind string, d downloaded) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.results[kind] = append(f.results[kind], d)
}

// release lets the clients come to their end: what they were to be there for has been
// seen.
func (f *fleetOfClients) release(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(f.gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// wait waits for the last client.
func (f *fleetOfClients) wait(l *lab) {
	l.t.Helper()
	select {
	case <-f.done:
	case <-time.After(5 * patience):
		l.t.Errorf("clients are not done after %s", 5*patience)
	}
}

// stalls are the longest gaps of the strict clients or the others, in order.
func (f *fleetOfClients) stalls(strict bool, kinds ...string) []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []time.Duration
	for _, k := range kinds {
		for _, d := range f.results[k] {
			if d.Strict == strict {
				out = append(out, d.Gap)
			}
		}
	}
	slices.Sort(out)
	return out
}

// quantile of sorted values, the nearest rank.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
