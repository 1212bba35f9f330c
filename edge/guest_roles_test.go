//go:build e2e

package edge

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// streamArgs start N clients of the sample server.
type streamArgs struct {
	N              int
	VIP            string
	Length, Upload uint64
	// Hold is how many octets a client takes, and sends of its upload, before it is told
	// "end".
	Hold uint64
	// Beat, if set, is how often a client sends an octet of its upload while it is held:
	// one whose session is gone hears a reset.
	Beat   time.Duration
	Buffer int           // receive buffer, 0: the default
	Limit  time.Duration // of a client's life, 0: 80 s
}

// streamRole runs them: one line when each is held, one with all results.
func streamRole() error {
	var x streamArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	last := make(chan struct{})
	go gates{"end": last}.listen()
	results := make([]result, x.N)
	var begun, ended sync.WaitGroup
	for i := range results {
		begun.Add(1)
		held := sync.OnceFunc(begun.Done)
		ended.Go(func() {
			defer held()
			if err := x.client(uint64(i)+1, held, last); err != nil {
				results[i].Err = err.Error()
			}
		})
	}
	out := json.NewEncoder(os.Stdout)
	begun.Wait()
	out.Encode("begun")
	ended.Wait()
	return out.Encode(results)
}

// client checks every octet both ways.
func (x streamArgs) client(seed uint64, held func(), last <-chan struct{}) error {
	d := net.Dialer{Timeout: 20 * time.Second, Control: func(_, _ string, c syscallConn) error { return setBuffer(c, x.Buffer) }}
	c, err := d.Dial("tcp", net.JoinHostPort(x.VIP, "8080"))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(or(x.Limit, 80*time.Second)))
	sent := make(chan error, 1)
	go func() { sent <- x.upload(c, seed, last) }()
	err = x.download(c, seed, held, last)
	if err == nil {
		return <-sent
	}
	select {
	case other := <-sent: // the kernel tells of a reset once, and a writer may have heard it
		return errors.Join(err, other)
	default:
		return err
	}
}

// upload sends what the digest is of.
func (x streamArgs) upload(c net.Conn, seed uint64, last <-chan struct{}) error {
	if _, err := fmt.Fprintf(c, "%d %d %d\n", seed, x.Length, x.Upload); err != nil {
		return err
	}
	held := min(x.Hold, x.Upload/2)
	at := uint64(0)
	put := func(to uint64) error {
		for at < to {
			b := make([]byte, min(to-at, 8<<10))
			for i := range b {
				b[i] = drawn(^seed, at+uint64(i))
			}
			if _, err := c.Write(b); err != nil {
				return fmt.Errorf("upload at %d: %w", at, err)
			}
			at += uint64(len(b))
		}
		return nil
	}
	if err := put(held); err != nil {
		return err
	}
	for waiting := true; waiting; {
		beat := make(<-chan time.Time)
		if x.Beat > 0 {
			beat = time.After(x.Beat)
		}
		select {
		case <-last:
			waiting = false
		case <-beat:
			if err := put(min(at+1, x.Upload)); err != nil {
				return err
			}
		}
	}
	return put(x.Upload)
}

func (x streamArgs) download(c net.Conn, seed uint64, held func(), last <-chan struct{}) error {
	r, buf := bufio.NewReaderSize(c, 32<<10), make([]byte, 16<<10)
	for at := uint64(0); at < x.Length; {
		if at >= x.Hold {
			held()
			if x.Hold > 0 {
				<-last
			}
		}
		n, err := r.Read(buf[:min(uint64(len(buf)), x.Length-at)])
		for i, b := range buf[:n] {
			if want := drawn(seed, at+uint64(i)); b != want {
				return fmt.Errorf("octet %d is %#x, want %#x", at+uint64(i), b, want)
			}
		}
		if at += uint64(n); err != nil {
			return fmt.Errorf("download at %d: %w", at, err)
		}
	}
	held()
	var got, want uint64 = 0, 0xcbf29ce484222325
	if err := binary.Read(r, binary.BigEndian, &got); err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	for i := range x.Upload {
		want = (want ^ uint64(drawn(^seed, i))) * 0x100000001b3
	}
	if got != want {
		return fmt.Errorf("digest of the upload %#x, want %#x", got, want)
	}
	if n, err := r.Read(buf); n != 0 || err != io.EOF {
		return fmt.Errorf("behind the end: %d octets, %w", n, err)
	}
	return nil
}

func setBuffer(c syscallConn, size int) error {
	if size == 0 {
		return nil
	}
	return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size) })
}

// drawn is the sample's stream, written anew.
func drawn(seed, i uint64) byte {
	x := seed + (i/8+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return byte((x ^ x>>31) >> (8 * (i % 8)))
}

// guestWorld is a world whose sites have servers that are not ours.
type guestWorld struct {
	*world
	a, b *process
}

func (w *world) socket(site string) string { return filepath.Join(w.dir, site+".sock") }

// guests starts both agents.
func (w *world) guests(change func(*agentArgs)) guestWorld {
	w.t.Helper()
	for _, site := range []string{"a", "b"} {
		w.in(site, "ip addr add "+vip4+"/32 dev lo")
		w.in(site, "ip addr add "+vip6+"/128 dev lo nodad")
	}
	g := guestWorld{world: w}
	g.a, g.b = w.guestAgent("a", change), w.guestAgent("b", change)
	for _, site := range []string{"a", "b"} {
		w.await("rules at "+site, func() bool { return strings.Contains(w.in(site, "nft list ruleset"), vip6) })
	}
	return g
}

// guestAgent starts one of them. A busy machine is no reason to give up an offer.
func (w *world) guestAgent(site string, change func(*agentArgs)) *process {
	return w.agent(site, map[string]string{"a": "b", "b": "a"}[site], func(x *agentArgs) {
		x.Root, x.Socket, x.Patience = "", w.socket(site), 5*time.Second
		if change != nil {
			change(x)
		}
	})
}

// sample builds the sample server once for a test and starts it at a site.
func (w *world) sample(site string) *exec.Cmd { return w.sampleAt(site, w.socket(site)) }

// sampleAt has it connect to another socket than the agent's.
func (w *world) sampleAt(site, socket string) *exec.Cmd {
	w.t.Helper()
	bin := filepath.Join(w.dir, "sample")
	if _, err := os.Stat(bin); err != nil {
		out, err := exec.Command("go", "build", "-o", bin, "./handsock/sample").CombinedOutput()
		if err != nil {
			w.t.Fatalf("build the sample: %v: %s", err, out)
		}
	}
	cmd := exec.Command("ip", "netns", "exec", w.prefix+site, bin, "-listen", ":8080", "-socket", socket, "-service", "stream")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// ready waits for a server at a site's socket.
func (g guestWorld) ready(sites ...*process) {
	g.t.Helper()
	for _, p := range sites {
		g.await("server at the hand-off socket", func() bool {
			var r report
			p.ask("state", &r)
			return len(r.Handing) == 1 && r.Handing[0].Servers > 0
		})
	}
}

// flows counts what is established at a site.
func (g guestWorld) flows(p *process) int {
	var r report
	p.ask("state", &r)
	return len(r.Flows)
}

// state asks an agent.
func (g guestWorld) state(p *process) (r report) {
	p.ask("state", &r)
	return r
}
