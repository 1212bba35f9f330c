package vip

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Agent is one member's part in the leases of its site.
type Agent struct {
	config  Config
	self    int
	clock   clock
	log     *slog.Logger
	metrics *metrics
	runners []*runner
	members map[uint64]int // by the hash of the name
	conns   []*net.UDPConn // by medium; owned by Run

	wanted atomic.Bool
	poke   chan struct{} // wanted has changed

	mu     sync.Mutex
	states []State
}

// datagram is what came in.
type datagram struct {
	data []byte
}

const (
	// lookEvery is how often the link of the device is looked at, and how long the
	// loop sleeps at most.
	lookEvery = 50 * time.Millisecond
	// keepEvery is how often the rules of a lease that is not ours are looked after.
	keepEvery = 500 * time.Millisecond
	// sickFor is how long a member leaves to others what its kernel refused.
	sickFor = 5 * time.Second
)

// New checks the configuration. Nothing is touched before Run.
func New(c Config) (*Agent, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	k := hostClock{}
	kernels := make([]kernel, len(c.Leases))
	for i, l := range c.Leases {
		kernels[i] = newHost(&c, l, k)
	}
	return newAgent(c, k, kernels)
}

// newAgent takes clock and kernels from outside, for tests.
func newAgent(c Config, k clock, kernels []kernel) (*Agent, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("vip: %w", err)
	}
	a := &Agent{config: c, self: c.self(), clock: k, log: c.Logger, metrics: m, members: make(map[uint64]int),
		poke: make(chan struct{}, 1), states: make([]State, len(c.Leases))}
	a.wanted.Store(true)
	for i, member := range c.Members {
		a.members[nameHash(member.Name)] = i
	}
	for i, l := range c.Leases {
		a.runners = append(a.runners, &runner{agent: a, place: i, lease: l, kernel: kernels[i]})
		a.states[i] = State{Lease: l.Name, Addrs: l.Addrs}
		m.owner.WithLabelValues(l.Name).Set(0)
	}
	return a, nil
}

// Want tells whether this node shall be owner of anything. It is so from the start. A
// node that shall not gives up what it has, first its kernel and then the leases.
func (a *Agent) Want(owner bool) {
	if a.wanted.Swap(owner) == owner {
		return
	}
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// States tells of all leases, in the order of the configuration.
func (a *Agent) States() []State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]State(nil), a.states...)
}

// Run takes part until the context ends. Then it gives up what it has; the rules
// stay, and keep this host silent.
func (a *Agent) Run(ctx context.Context) error {
	boot := make([]byte, 8)
	_, _ = rand.Read(boot) // never fails
	for _, r := range a.runners {
		if err := r.begin(binary.BigEndian.Uint64(boot)); err != nil {
			return err
		}
		defer r.kernel.close()
	}
	if err := a.listen(); err != nil {
		return err
	}
	mail := make(chan datagram, 64)
	var readers sync.WaitGroup
	for _, c := range a.conns {
		readers.Go(func() { a.read(ctx, c, mail) })
	}
	a.loop(ctx, mail)
	for _, r := range a.runners {
		r.end()
	}
	for _, c := range a.conns {
		_ = c.Close()
	}
	readers.Wait()
	return nil
}

// listen opens a socket at each of this member's addresses.
func (a *Agent) listen() error {
	for _, addr := range a.config.Members[a.self].Addrs {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			for _, open := range a.conns {
				_ = open.Close()
			}
			return fmt.Errorf("vip: listen: %w", err)
		}
		a.conns = append(a.conns, c)
	}
	return nil
}

// read hands on what comes in by one medium, until the socket is closed.
func (a *Agent) read(ctx context.Context, c *net.UDPConn, mail chan<- datagram) {
	buf := make([]byte, wireSize+1)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a neighbour's ICMP error, about something that we sent
		}
		select {
		case mail <- datagram{append([]byte(nil), buf[:n]...)}:
		case <-ctx.Done():
		}
	}
}

// loop is the only goroutine that touches the machines and the kernel.
func (a *Agent) loop(ctx context.Context, mail <-chan datagram) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-mail:
			a.receive(d)
		case <-timer.C:
		case <-a.poke:
		}
		next := a.clock.now() + lookEvery
		for _, r := range a.runners {
			next = min(next, r.tick(a.clock.now()))
		}
		timer.Reset(max(0, next-a.clock.now()))
	}
}

// receive gives a message to its lease. The clock is read after the message was.
func (a *Agent) receive(d datagram) {
	m, sender, err := decode(d.data, a.config.Key)
	from, known := a.members[sender]
	if err != nil || !known || from == a.self {
		a.metrics.refused.Inc()
		return
	}
	for _, r := range a.runners {
		if r.machine.id == m.lease {
			now := a.clock.now()
			r.do(r.machine.receive(now, from, m))
			return
		}
	}
}

// send sends a message by every medium. What is lost is asked again.
func (a *Agent) send(to int, m message) {
	b := encode(m, nameHash(a.config.Self), a.config.Key)
	for i, c := range a.conns {
		_, _ = c.WriteToUDPAddrPort(b, a.config.Members[to].Addrs[i])
	}
}
