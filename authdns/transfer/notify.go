package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// notifyTries is how often a secondary is told of one version, and notifyWait how
// long it may take to answer. The wait between tries doubles (RFC 1996 section
// 3.6): six tries take a bit more than a minute, and the refresh timer of the
// secondary stands behind them.
const (
	notifyTries = 6
	notifyWait  = 3 * time.Second
)

// pauseAfter is how long to wait after a try that was not answered.
func pauseAfter(try int) time.Duration { return time.Second << try }

// Notifier tells secondaries of new versions until they answer. It fulfils Teller.
type Notifier struct {
	keys   *Keyring
	source netip.Addr
	log    *slog.Logger
	now    func() time.Time

	mu sync.Mutex
	// pending are versions not yet being told of, by zone; guarded by mu.
	pending map[string]told
	wake    chan struct{}
}

// told is a version to tell of; a nil soa takes everything about the zone back.
type told struct {
	soa   *dns.SOA
	rules Rules
}

// NewNotifier makes a Notifier which speaks from an address, or from any where
// that is not valid.
func NewNotifier(keys *Keyring, source netip.Addr, log *slog.Logger) *Notifier {
	return &Notifier{keys: keys, source: source, log: log, now: time.Now, pending: make(map[string]told), wake: make(chan struct{}, 1)}
}

// Tell is of Teller; it never blocks.
func (n *Notifier) Tell(zone string, soa *dns.SOA, rules Rules) {
	n.mu.Lock()
	n.pending[zone] = told{soa, rules}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take empties what is pending.
func (n *Notifier) take() map[string]told {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.pending
	n.pending = make(map[string]told)
	return out
}

// Run tells until the context ends. A newer version of a zone ends what is still
// being said of the one before.
func (n *Notifier) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	running := make(map[string]context.CancelFunc)
	defer func() {
		for _, cancel := range running {
			cancel()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		}
		for zone, t := range n.take() {
			if cancel := running[zone]; cancel != nil {
				cancel()
				delete(running, zone)
			}
			if t.soa == nil || len(t.rules.Notify) == 0 {
				continue
			}
			job, cancel := context.WithCancel(ctx)
			running[zone] = cancel
			for _, target := range t.rules.Notify {
				group.Go(func() { n.deliver(job, zone, t, target) })
			}
		}
	}
}

// deliver tells one secondary until it answers, whatever it says.
func (n *Notifier) deliver(ctx context.Context, zone string, t told, target netip.AddrPort) {
	var last error
	for try := range notifyTries {
		rcode, err := n.tell(ctx, zone, t, target)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && rcode != dns.RcodeSuccess:
			n.log.Warn("secondary does not take our NOTIFY", "zone", zone, "peer", target.String(), "err", rcodeName(rcode))
			return
		case err == nil:
			n.log.Debug("secondary notified", "zone", zone, "peer", target.String(), "serial", t.soa.Serial)
			return
		}
		last = err
		if !pause(ctx, pauseAfter(try)) {
			return
		}
	}
	n.log.Warn("secondary does not answer our NOTIFY: it learns of the version when its refresh timer ends",
		"zone", zone, "peer", target.String(), "serial", t.soa.Serial, "err", last)
}

// tell sends one NOTIFY and waits for its answer.
func (n *Notifier) tell(ctx context.Context, zone string, t told, target netip.AddrPort) (rcode int, err error) {
	msg, c, err := n.message(zone, t)
	if err != nil {
		return 0, err
	}
	d := net.Dialer{}
	if n.source.IsValid() && n.source.Is4() == target.Addr().Is4() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.source, 0))
	}
	ctx, cancel := context.WithTimeout(ctx, notifyWait)
	defer cancel()
	conn, err := d.DialContext(ctx, "udp", target.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(msg); err != nil {
		return 0, err
	}
	return awaitReply(conn, msg, c)
}

// message makes a NOTIFY with the SOA as a hint (RFC 1996 section 3.7), signed
// where the rules name a key.
func (n *Notifier) message(zone string, t told) ([]byte, *chain, error) {
	m := new(dns.Msg)
	m.SetNotify(zone)
	m.Id = uint16(rand.Uint32())
	m.Answer = []dns.RR{dns.Copy(t.soa)}
	msg, err := m.Pack()
	if err != nil || t.rules.NotifyKey == "" {
		return msg, nil, err
	}
	k := n.keys.Find(t.rules.NotifyKey)
	if k == nil {
		return nil, nil, fmt.Errorf("no key %s on this node", t.rules.NotifyKey)
	}
	c := &chain{key: k, now: n.now}
	return c.sign(msg), c, nil
}

// awaitReply reads until the answer to a message comes; what is not one, or not
// signed as it must be, may be forged and is passed over.
func awaitReply(conn net.Conn, msg []byte, c *chain) (rcode int, err error) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, errors.New("no answer")
		}
		in := buf[:n]
		if n < headerLen || in[2]&0x80 == 0 || opcodeOf(in) != opcodeOf(msg) || binary.BigEndian.Uint16(in) != binary.BigEndian.Uint16(msg) {
			continue
		}
		if _, err := c.receive(in, true); err != nil && rcodeOf(in) == dns.RcodeSuccess {
			continue
		}
		return rcodeOf(in), nil
	}
}

// pause waits, and tells whether the context still holds.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
