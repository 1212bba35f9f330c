//go:build e2e

package e2e

import (
	"context"
	be "encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// crowd is a multitude of clients, always the same for a seed: half of them of
// each family, half of them behind resolvers which tell their subnet.
type crowd struct {
	Seed    uint64        `json:"seed"`
	Size    int           `json:"size"`
	Names   []steeredName `json:"names"`
	Server4 netip.Addr    `json:"server4"`
	Server6 netip.Addr    `json:"server6"`
	// Only names the questions to ask, by their index; none means all.
	Only []int `json:"only,omitempty"`
}

// steeredName is a name and the types which may be asked for it.
type steeredName struct {
	Name  string   `json:"name"`
	Types []string `json:"types"`
}

// member is one client of a crowd.
type member struct {
	// subnet is what its resolver tells of it; invalid for none.
	subnet netip.Prefix
	// from is the address of its resolver.
	from netip.Addr
}

// Where the resolvers are: nobody else in the lab has such addresses, so that a
// site's own namespace can play them all, as local ones.
var resolverBlocks = []string{"0.0.0.0/1", "128.0.0.0/2", "2400::/6", "2a00::/8"}

// members makes the clients.
func (c *crowd) members() []member {
	r := rand.New(rand.NewPCG(c.Seed, 99))
	out := make([]member, c.Size)
	for i := range out {
		m := member{from: resolverAddr(r, i%2 == 1)}
		if i/2%2 == 0 {
			bits := []int{24, 24, 24, 32, 28, 20, 16, 8, 0}[r.IntN(9)]
			addr := resolverAddr(r, false)
			if i%2 == 1 {
				bits = []int{56, 56, 48, 64, 60, 128, 40, 32, 0}[r.IntN(9)]
				addr = resolverAddr(r, true)
			}
			if i%20 < 2 {
				addr = labClient(r, i%2 == 1)
			}
			m.subnet = netip.PrefixFrom(addr, bits).Masked()
		}
		out[i] = m
	}
	return out
}

// resolverAddr is an address of the resolvers' blocks.
func resolverAddr(r *rand.Rand, v6 bool) netip.Addr {
	if !v6 {
		for {
			var b [4]byte
			be.BigEndian.PutUint32(b[:], r.Uint32())
			if a := netip.AddrFrom4(b); b[0] > 0 && b[0] < 192 && !a.IsLoopback() && !a.IsPrivate() && !a.IsLinkLocalUnicast() {
				return a
			}
		}
	}
	var b [16]byte
	be.BigEndian.PutUint64(b[:], r.Uint64())
	be.BigEndian.PutUint64(b[8:], r.Uint64())
	b[0] = []byte{0x24, 0x26, 0x2a}[r.IntN(3)]
	return netip.AddrFrom16(b)
}

// labClient is an address of the lab's own clients.
func labClient(r *rand.Rand, v6 bool) netip.Addr {
	n := byte(r.IntN(3) * 32)
	if !v6 {
		return netip.AddrFrom4([4]byte{203, 0, 113, n + byte(r.IntN(16))})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x01, 0, 0, n, 15: byte(r.Uint32())})
}

// questions are what the crowd asks: each client each name, of a type by turns.
func (c *crowd) questions() []question {
	var out []question
	for i, m := range c.members() {
		server := c.Server4
		if m.from.Is6() {
			server = c.Server6
		}
		for j, n := range c.Names {
			out = append(out, question{Server: netip.AddrPortFrom(server, 53), Name: n.Name, Type: n.Types[(i/4+j)%len(n.Types)],
				Client: m.subnet, From: m.from, NSID: true})
		}
	}
	return out
}

// How a crowd asks: so many questions are under way at a time, and one that is
// not answered is asked again.
const (
	crowdWindow = 128
	crowdWithin = time.Second
	crowdTries  = 20
)

// crowdRun is a crowd asking.
type crowdRun struct {
	qs     []question
	conn   *net.UDPConn
	report func(answer)

	mu     sync.Mutex
	asked  []time.Time
	done   []bool
	ticket chan struct{}
}

// ask puts all questions from inside a site's node and reports each answer.
func (c *crowd) ask(ctx context.Context, report func(answer)) error {
	lc := net.ListenConfig{Control: freeBind}
	p, err := lc.ListenPacket(ctx, "udp", "[::]:0")
	if err != nil {
		return fmt.Errorf("crowd: %w", err)
	}
	defer p.Close()
	qs, index := c.chosen()
	run := &crowdRun{qs: qs, conn: p.(*net.UDPConn), ticket: make(chan struct{}, crowdWindow)}
	run.report = func(a answer) {
		a.Q = index(a.Q)
		report(a)
	}
	run.asked, run.done = make([]time.Time, len(run.qs)), make([]bool, len(run.qs))
	go run.receive()
	return run.send(ctx)
}

// chosen are the questions to ask, and the index of each among all.
func (c *crowd) chosen() ([]question, func(int) int) {
	all := c.questions()
	if c.Only == nil {
		return all, func(i int) int { return i }
	}
	var out []question
	for _, i := range c.Only {
		out = append(out, all[i])
	}
	return out, func(i int) int { return c.Only[i] }
}

// freeBind lets a socket send from addresses which the machine has by a route only.
func freeBind(_, _ string, c syscall.RawConn) error {
	var err error
	e := c.Control(func(fd uintptr) {
		err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, 15, 1), // IP_FREEBIND
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, 78, 1),   // IPV6_FREEBIND
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, 33, 8<<20)) // SO_RCVBUFFORCE is root's
	})
	return errors.Join(e, err)
}

// batch is how many questions have message ids of their own.
const batch = 1 << 16

func (r *crowdRun) send(ctx context.Context) error {
	for from := 0; from < len(r.qs); from += batch {
		to := min(from+batch, len(r.qs))
		for range crowdTries {
			for i := from; i < to; i++ {
				if err := r.sendOne(ctx, i); err != nil {
					return err
				}
			}
			r.settle(from, to)
		}
		if n := r.open(from, to); n > 0 {
			return fmt.Errorf("crowd: %d of %d questions were not answered", n, to-from)
		}
	}
	return nil
}

func (r *crowdRun) sendOne(ctx context.Context, i int) error {
	r.mu.Lock()
	done := r.done[i]
	r.asked[i] = time.Now()
	r.mu.Unlock()
	if done {
		return nil
	}
	select {
	case r.ticket <- struct{}{}:
	case <-time.After(crowdWithin): // something was lost: its ticket is made anew
	case <-ctx.Done():
		return ctx.Err()
	}
	q := r.qs[i]
	m := q.message()
	m.Id = uint16(i % batch)
	wire, err := m.Pack()
	if err != nil {
		return err
	}
	dst := net.UDPAddrFromAddrPort(q.Server)
	if q.From.Is4() {
		_, _, err = r.conn.WriteMsgUDP(wire, (&ipv4.ControlMessage{Src: q.From.AsSlice()}).Marshal(), dst)
	} else {
		_, _, err = r.conn.WriteMsgUDP(wire, (&ipv6.ControlMessage{Src: q.From.AsSlice()}).Marshal(), dst)
	}
	if err != nil {
		return fmt.Errorf("crowd: from %s: %w", q.From, err)
	}
	return nil
}

// settle waits until everything is answered, or nothing comes any more.
func (r *crowdRun) settle(from, to int) {
	for deadline := time.Now().Add(crowdWithin); time.Now().Before(deadline) && r.open(from, to) > 0; {
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *crowdRun) open(from, to int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, d := range r.done[from:to] {
		if !d {
			n++
		}
	}
	return n
}

func (r *crowdRun) receive() {
	buf := make([]byte, 4096)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		select {
		case <-r.ticket:
		default:
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil || len(m.Question) != 1 {
			fmt.Fprintf(os.Stderr, "crowd: %v from %s\n", err, from)
			continue
		}
		r.take(m, buf[:n])
	}
}

// take finds the question of an answer; batches are not mixed, since the next one
// begins when the last one is answered.
func (r *crowdRun) take(m *dns.Msg, wire []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := int(m.Id); i < len(r.qs); i += batch {
		if !r.done[i] && !r.asked[i].IsZero() && dns.Fqdn(r.qs[i].Name) == m.Question[0].Name {
			r.done[i] = true
			r.report(answer{Q: i, At: time.Now(), Took: time.Since(r.asked[i]), Wire: append([]byte(nil), wire...)})
			return
		}
	}
}
