package health

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"
)

// pulse is what a machine says of itself, each 50 ms, to the health role of its site: it
// is there, and these addresses are served on it. That of a vantage, which is a health role
// itself, says that it judges, and what has ended on its machine by the kernel's word.
//
//	version 1 B · kind 1 B · interval in ms 2 B · incarnation 4 B · number 4 B
//	name: length 1 B, octets · addresses: count 1 B, each family 1 B, address, port 2 B
//	tag 16 B: HMAC-SHA-256 over all before, cut short
type pulse struct {
	name        string
	bye         bool
	vantage     bool
	interval    time.Duration
	incarnation uint32
	number      uint32
	listen      []netip.AddrPort
}

const (
	pulseVersion = 1
	pulseTag     = 16
	pulseMax     = 1400 // of a datagram; it passes every Ethernet
	kindPulse    = 1
	kindBye      = 2
	kindVantage  = 3 // these two are dropped by releases before
	kindSilent   = 4
)

// errPulse is a datagram that is none of ours, or not of this version.
var errPulse = errors.New("not a pulse")

// seal appends the pulse as a datagram. Addresses for which there is no room are left
// out; the looks find out about them.
func (p *pulse) seal(key *[32]byte, buf []byte) []byte {
	kind := byte(kindPulse)
	if p.bye {
		kind = kindBye
	}
	if p.vantage {
		kind += kindVantage - kindPulse
	}
	buf = append(buf, pulseVersion, kind)
	buf = binary.BigEndian.AppendUint16(buf, uint16(p.interval/time.Millisecond))
	buf = binary.BigEndian.AppendUint32(buf, p.incarnation)
	buf = binary.BigEndian.AppendUint32(buf, p.number)
	buf = append(append(buf, byte(len(p.name))), p.name...)
	count := len(buf)
	buf = append(buf, 0)
	for _, a := range p.listen {
		ip := a.Addr().AsSlice()
		if len(buf)+len(ip)+3+pulseTag > pulseMax || buf[count] == 255 {
			break
		}
		buf[count]++
		buf = append(append(buf, byte(len(ip))), ip...)
		buf = binary.BigEndian.AppendUint16(buf, a.Port())
	}
	return append(buf, pulseMAC(key, buf)...)
}

func pulseMAC(key *[32]byte, data []byte) []byte {
	m := hmac.New(sha256.New, key[:])
	m.Write(data)
	return m.Sum(nil)[:pulseTag]
}

// openPulse reads a datagram that was sealed with the key.
func openPulse(key *[32]byte, data []byte) (p pulse, err error) {
	const head = 13
	if len(data) < head+1+pulseTag || data[0] != pulseVersion {
		return p, errPulse
	}
	body, tag := data[:len(data)-pulseTag], data[len(data)-pulseTag:]
	if !hmac.Equal(tag, pulseMAC(key, body)) {
		return p, errPulse
	}
	p.bye, p.vantage = body[1] == kindBye || body[1] == kindSilent, body[1] >= kindVantage
	p.interval = time.Duration(binary.BigEndian.Uint16(body[2:])) * time.Millisecond
	p.incarnation, p.number = binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:])
	name, rest := int(body[12]), body[head:]
	if body[1] < kindPulse || body[1] > kindSilent || p.interval <= 0 || name == 0 || len(rest) < name+1 {
		return p, errPulse
	}
	p.name = string(rest[:name])
	p.listen, err = readListen(int(rest[name]), rest[name+1:])
	return p, err
}

// readListen reads so many addresses, and nothing behind them.
func readListen(n int, b []byte) (out []netip.AddrPort, err error) {
	for range n {
		if len(b) < 1 || (b[0] != 4 && b[0] != 16) || len(b) < 1+int(b[0])+2 {
			return nil, errPulse
		}
		ip, _ := netip.AddrFromSlice(b[1 : 1+b[0]])
		out = append(out, netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[1+b[0]:])))
		b = b[1+b[0]+2:]
	}
	if len(b) > 0 {
		return nil, errPulse
	}
	return out, nil
}

// DefaultPulse is how often a machine beats inside its site.
const DefaultPulse = 50 * time.Millisecond

// Pulse tells the health role of the site, on another machine, that this machine is
// there. Where two networks join the machines, it has an address in each: a switch
// that fails is then no death.
type Pulse struct {
	// Node names the machine; Incarnation rises at each start.
	Node        string
	Incarnation uint32
	Key         [32]byte
	// To are the watcher's addresses.
	To    []netip.AddrPort
	Every time.Duration // DefaultPulse by default
	// Listen returns the addresses served here; it is asked at every beat.
	Listen func() []netip.AddrPort
	// Vantage is set for the beats of a health role: Listen are then the addresses whose
	// process has ended (Agent.Ended).
	Vantage bool
	Log     *slog.Logger
}

// Run beats until the context ends, and says goodbye then. Like the beats between sites
// it has a thread of its own.
func (p *Pulse) Run(ctx context.Context) error {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return fmt.Errorf("pulse: %w", err)
	}
	defer conn.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if p.Every == 0 {
		p.Every = DefaultPulse
	}
	beat := pulse{name: p.Node, vantage: p.Vantage, interval: p.Every, incarnation: p.Incarnation}
	buf := make([]byte, 0, pulseMax)
	var failed error
	send := func() {
		beat.number++
		buf = beat.seal(&p.Key, buf[:0])
		for _, to := range p.To {
			if _, err := conn.WriteToUDPAddrPort(buf, to); err != nil && failed == nil {
				failed = err
				p.Log.Warn("a beat inside the site was not sent", "to", to, "err", err)
			}
		}
	}
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for {
		beat.listen = p.Listen()
		send()
		select {
		case <-tick.C:
		case <-ctx.Done():
			beat.bye = true
			for range goodbyeCopies {
				send()
			}
			return nil
		}
	}
}

// goodbyeCopies is how often a goodbye is said: datagrams get lost.
const goodbyeCopies = 3
