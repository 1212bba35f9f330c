package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Machines hears the other machines of this site. One goroutine on a thread of its own
// reads all that waits before it judges, so that a pause of ours is nobody's death.
type Machines struct {
	key   [32]byte
	conns []*net.UDPConn
	log   *slog.Logger
	bell  chan struct{}

	mu     sync.Mutex // guards events
	events []MachineEvent
}

// pulseTick is how often the sockets are emptied and the machines judged.
const pulseTick = 10 * time.Millisecond

// ListenMachines opens a socket on each address, one a network; Run closes them.
func ListenMachines(addrs []netip.AddrPort, key [32]byte, log *slog.Logger) (*Machines, error) {
	m := &Machines{key: key, log: log, bell: make(chan struct{}, 1)}
	for _, a := range addrs {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		if err != nil {
			m.close()
			return nil, fmt.Errorf("health: beats inside the site: %w", err)
		}
		m.conns = append(m.conns, c)
	}
	return m, nil
}

func (m *Machines) close() {
	for _, c := range m.conns {
		c.Close()
	}
}

// Bell rings when there are events to take; nil where nobody is watched.
func (m *Machines) Bell() <-chan struct{} {
	if m == nil {
		return nil
	}
	return m.bell
}

// Take returns the events since the last call.
func (m *Machines) Take() []MachineEvent {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.events
	m.events = nil
	return out
}

// Run watches until the context ends.
func (m *Machines) Run(ctx context.Context) error {
	defer m.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tick := time.NewTicker(pulseTick)
	defer tick.Stop()
	began := time.Now()
	state, before, buf := newMachines(), time.Duration(0), make([]byte, pulseMax)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		at := time.Since(began)
		for via, c := range m.conns {
			if err := m.drain(state, via, c, at, buf); err != nil {
				return fmt.Errorf("health: beats inside the site: %w", err)
			}
		}
		slack := time.Duration(0)
		if pause := at - before - pulseTick; pause > DefaultPulse {
			slack = pause
		}
		state.judge(at, slack, time.Now())
		before = at
		m.publish(state.take())
	}
}

// drain takes all that waits in a socket, bounded by what a socket holds.
func (m *Machines) drain(state *machines, via int, c *net.UDPConn, at time.Duration, buf []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		for range 4096 {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return true // nothing waits, or an ICMP error of somebody's
			}
			if p, err := openPulse(&m.key, buf[:n]); err == nil {
				state.hear(p, via, at, time.Now())
			}
		}
		return true
	})
}

func (m *Machines) publish(events []MachineEvent) {
	if len(events) == 0 {
		return
	}
	m.mu.Lock()
	m.events = append(m.events, events...)
	m.mu.Unlock()
	select {
	case m.bell <- struct{}{}:
	default:
	}
}

// localAddrs are the addresses of this host. What is served here, too, does not end with
// another machine.
func localAddrs() map[netip.Addr]bool {
	out := make(map[netip.Addr]bool)
	all, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr()] = true
		}
	}
	return out
}
