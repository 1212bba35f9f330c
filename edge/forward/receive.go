package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// servedLife is how long the kernel's word that a tunnelled flow has a
	// socket here is believed, absentLife its word that it has none: shorter,
	// for a session may be restored at any moment.
	servedLife = 250 * time.Millisecond
	absentLife = 20 * time.Millisecond
	maxServed  = 1 << 16
)

// served is the tunnel reader's memory of which sessions are served here.
type served map[session]servedEntry

type servedEntry struct {
	ok    bool
	until time.Time
}

// receiver is the state of the goroutine that reads the tunnel: what only it
// touches needs no lock.
type receiver struct {
	*Forwarder
	ends   *ends
	served served
	steps  []step
	reply  []byte
	carrier
}

func (f *Forwarder) newReceiver(e *ends) *receiver {
	return &receiver{Forwarder: f, ends: e, served: make(served),
		carrier: carrier{octets: bucket{rate: f.rate, left: f.rate}, tells: bucket{rate: tellRate, left: tellRate}}}
}

// readTunnel handles what peers send.
func (f *Forwarder) readTunnel(ctx context.Context, e *ends) error {
	r := f.newReceiver(e)
	buf, control := make([]byte, largestInput), make([]byte, 64)
	for {
		n, nc, _, _, err := e.tunnel.conn.ReadMsgUDPAddrPort(buf, control)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("forward: read tunnel: %w", err)
		}
		r.receiveAll(f.now(), buf[:n], segmentSize(control[:nc]))
	}
}

// receiveAll handles datagrams of a size which the kernel joined, the last one perhaps
// shorter; a size of 0 is that of all.
func (r *receiver) receiveAll(now time.Time, b []byte, size int) {
	if size <= 0 {
		size = len(b)
	}
	for {
		d := b[:min(size, len(b))]
		if err := r.receive(now, d); err != nil {
			r.metrics.refused.WithLabelValues(reason(err)).Inc()
		}
		if b = b[len(d):]; len(b) == 0 {
			return
		}
	}
}

// segmentSize is how long the datagrams are which the kernel joined in one read
// (UDP_GRO of udp(7)); 0 where there is one.
func segmentSize(control []byte) int {
	for len(control) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4 {
			return int(binary.NativeEndian.Uint32(data))
		}
		control = rest
	}
	return 0
}

// reason names an error as a metric's label. A rising "tag" means that two
// sites disagree about their key, a rising "replay" without a restart that
// somebody repeats datagrams.
func reason(err error) string {
	switch {
	case errors.Is(err, errTag):
		return "tag"
	case errors.Is(err, errReplay):
		return "replay"
	case errors.Is(err, errSender):
		return "sender"
	case errors.Is(err, errHops):
		return "hops"
	}
	return "form"
}

var errSender = errors.New("unknown sender")

// receive handles one datagram: form, sender, tag and number are checked
// before anything in it is believed. The error says why it was refused.
func (r *receiver) receive(now time.Time, b []byte) error {
	h, err := readHead(b)
	if err != nil {
		return err
	}
	p := r.peers.Load().byID[h.sender]
	if p == nil {
		return errSender
	}
	body, err := p.open(h, b)
	if err != nil {
		return err
	}
	switch h.kind {
	case kindPacket:
		return r.deliver(now, p, body)
	case kindPart:
		packet, err := p.joiner.add(now, body)
		if err != nil || packet == nil {
			return err
		}
		return r.deliver(now, p, packet)
	case kindAnnounce:
		r.learn(now, p, body)
		return nil
	case kindRelay:
		return r.passOn(now, p, body)
	case kindHello, kindRefused, kindNarrow:
		return r.heedRelay(p, h.kind, body)
	}
	return r.word(now, p, h.kind, body)
}

// word handles a question or an answer about a session.
func (r *receiver) word(now time.Time, p *peer, k kind, body []byte) error {
	about, rest, err := readSession(body)
	if err != nil {
		return err
	}
	if k == kindAsk {
		r.answer(now, p, about)
		return nil
	}
	_, table, _ := r.treat(about)
	r.mu.Lock()
	r.timeAnswer(now, p, about)
	r.steps = r.heed(now, p, table, k, about.flow, rest, r.steps[:0])
	r.mu.Unlock()
	r.run(now, table, r.steps)
	return nil
}

// heed passes an answer on to a table of owners, under the lock.
func (r *receiver) heed(now time.Time, p *peer, table *owners, k kind, flow Flow, rest []byte, steps []step) []step {
	switch k {
	case kindMine:
		return table.mine(now, flow, p.Site, steps)
	case kindNotMine, kindGone:
		return table.notMine(now, flow, p.Site, steps)
	case kindMoved:
		if len(rest) < len(siteID{}) {
			return steps
		}
		id := siteID(rest[:4])
		if id == r.id {
			return table.home(now, flow, steps)
		}
		if to := r.peers.Load().byID[id]; to != nil {
			return table.movedTo(now, flow, p.Site, to.Site, steps)
		}
	case kindKept:
		if len(rest) < len(siteID{}) {
			return steps
		}
		if owner := r.peers.Load().byID[siteID(rest[:4])]; owner != nil {
			table.kept(now, flow, p.Site, owner.Site)
		}
	}
	return steps
}

// timeAnswer learns how long a peer takes to answer, and lets packets wait
// twice as long for the slowest. Under the lock.
func (r *receiver) timeAnswer(now time.Time, p *peer, about session) {
	if p.sample.sent.IsZero() || p.sample.of != about {
		return
	}
	took := now.Sub(p.sample.sent)
	p.sample.sent = time.Time{}
	if p.sample.rtt == 0 {
		p.sample.rtt = took
	}
	p.sample.rtt += (took - p.sample.rtt) / 8
	wait := leastWait
	set := r.peers.Load()
	for _, site := range set.sites {
		wait = max(wait, 2*set.bySite[site].sample.rtt)
	}
	r.owners.wait = min(wait, mostWait)
	r.udp.wait = r.owners.wait
}

// answer says whether this site owns a session. It is the kernel's word, so it
// is never stale; or where this site moved it.
func (r *receiver) answer(now time.Time, p *peer, about session) {
	_, table, ours := r.treat(about)
	r.mu.Lock()
	to, claimed := table.wentTo(now, about.flow), table.claims(about.flow)
	r.mu.Unlock()
	if to != "" {
		r.say(p, kindMoved, about, to)
		return
	}
	if claimed { // it will be in the kernel, and is nowhere else
		r.say(p, kindMine, about, "")
		return
	}
	// Peers may ask about VIPs only, not about whatever else this host is
	// connected to.
	if !ours {
		r.say(p, kindNotMine, about, "")
		return
	}
	owned, err := r.ends.owns(about)
	if err != nil {
		r.complain(err)
		return // silence: the asker goes by the others
	}
	if owned {
		r.say(p, kindMine, about, "")
		return
	}
	// The one goes before the other, which sites understand that do not know the one.
	if owner := r.keptFor(about.flow); owner != "" && about.proto == protoTCP {
		r.say(p, kindKept, about, owner)
	}
	r.say(p, kindNotMine, about, "")
}

// owns tells whether the kernel of this host knows a session.
func (e *ends) owns(s session) (bool, error) {
	if s.proto == protoUDP {
		return e.flows.has(s.flow)
	}
	return e.diag.owned(s.flow)
}

// say sends an answer about a session.
func (r *receiver) say(p *peer, k kind, about session, to string) {
	r.reply = appendSession(r.reply[:0], about)
	if to != "" {
		id := idOf(to)
		r.reply = append(r.reply, id[:]...)
	}
	if err := r.send(p, k, r.reply); err != nil {
		r.complain(fmt.Errorf("forward: answer %s: %w", p.Site, err))
	}
}

// deliver lets a tunnelled packet enter this host if its session is one of
// ours.
func (r *receiver) deliver(now time.Time, p *peer, packet []byte) error {
	s, err := parsePacket(packet)
	if err != nil {
		return err
	}
	r.passing.Lock()
	defer r.passing.Unlock()
	_, table, ours := r.treat(s.session)
	r.mu.Lock()
	held, to, claimed := false, table.wentTo(now, s.flow), false
	follows := to != "" && table.passes(s.flow)
	if !s.quoted {
		held, claimed = table.holds(s.flow, s.packet), table.claims(s.flow)
	}
	r.mu.Unlock()
	switch {
	case claimed:
		if r.onHeld != nil {
			r.onHeld(s.flow, s.packet)
		}
	case held: // until its session has been restored here
	case to != "":
		// The sender shall turn to the new owner itself, which may be the sender.
		r.say(p, kindMoved, s.session, to)
		if follows {
			r.tunnel(now, to, s.packet)
		}
	// A peer may reach VIPs only, not this host's other services.
	case r.has(now, p, s, ours):
		r.arrived(now, p, s)
		if err := r.ends.rim.strays.write(s.packet); err != nil {
			r.complain(fmt.Errorf("forward: deliver from %s: %w", p.Site, err))
		}
	}
	return nil
}

// has tells whether a tunnelled session is served here, and tells the sender,
// once in absentLife, if it isn't.
func (r *receiver) has(now time.Time, p *peer, s stray, ours bool) bool {
	q := r.quic.Load()
	if ours && s.proto == protoUDP && q.VIPs[s.flow.VIP].Owner == ByConnectionID {
		return q.siteOf(s.datagram) == r.site // its id says so, or the sender erred
	}
	if e, ok := r.served[s.session]; ok && now.Before(e.until) {
		return e.ok
	}
	if len(r.served) >= maxServed {
		clear(r.served) // each costs a look-up to learn again
	}
	owned := false
	if ours {
		var err error
		if owned, err = r.ends.owns(s.session); err != nil {
			r.complain(err)
			return false
		}
	}
	if owned {
		r.served[s.session] = servedEntry{ok: true, until: now.Add(servedLife)}
		return true
	}
	r.served[s.session] = servedEntry{until: now.Add(absentLife)}
	r.say(p, kindGone, s.session, "")
	return false
}
