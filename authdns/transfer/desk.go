package transfer

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// Desk is where a name server hands in what may concern transfers.
type Desk struct {
	Keys *Keyring
	Out  *Out
	// In hears of new versions; nil: no zone comes from elsewhere.
	In  *In
	Now func() time.Time
}

// Request is a message that concerns the desk.
type Request struct {
	// Body is the message without its signature; what the rest of the server reads.
	Body []byte

	msg    []byte
	q      question
	opcode int
	serial uint32 // of the SOA in an IXFR request or a NOTIFY, where has is set
	has    bool
	key    *Key
	chain  *chain
	// fault is set where the signature does not hold; sig is then what came.
	fault uint16
	sig   *signature
}

// Read looks whether a message concerns the desk: whether it is signed, asks for a
// transfer, or tells of a new version. Anything malformed is left to the server.
func (d *Desk) Read(msg []byte) (*Request, bool) {
	if d == nil || len(msg) < headerLen || msg[2]&0x80 != 0 || !d.concerns(msg) {
		return nil, false
	}
	q, ok := readQuestion(msg)
	sig, err := findSignature(msg)
	if !ok || err != nil {
		return nil, false
	}
	r := &Request{Body: msg, msg: msg, q: q, opcode: opcodeOf(msg)}
	if sig != nil {
		d.verify(r, sig)
	}
	r.readSerial()
	return r, sig != nil || r.Transfer() || r.Notify()
}

// concerns is a cheap look at a message: most have one question of an ordinary
// type, and nothing but an OPT record.
func (d *Desk) concerns(msg []byte) bool {
	if opcodeOf(msg) == dns.OpcodeNotify {
		return true
	}
	end, ok := skipName(msg, headerLen)
	if opcodeOf(msg) != dns.OpcodeQuery || !ok || end+4 > len(msg) {
		return false
	}
	t := binary.BigEndian.Uint16(msg[end:])
	return t == dns.TypeAXFR || t == dns.TypeIXFR || binary.BigEndian.Uint16(msg[10:]) > 0
}

// verify judges the signature of a request (RFC 8945 section 5.2).
func (d *Desk) verify(r *Request, sig *signature) {
	r.sig = sig
	r.key = d.Keys.Find(sig.name)
	if r.key == nil || r.key.Algorithm != sig.algorithm {
		r.key, r.fault = nil, badKey
		return
	}
	r.chain = &chain{key: r.key, now: d.Now}
	r.fault = r.chain.check(sig, r.msg)
	r.chain.advance(sig.mac, false)
	r.Body = sig.stripped(r.msg)
}

// readSerial finds the SOA: what an asker has, or what a primary tells of.
func (r *Request) readSerial() {
	section := authority
	if r.Notify() {
		section = answer
	}
	// An error was met before: the walk for the signature went the same way.
	_ = walk(r.msg, func(rr record) error {
		if s, ok := serialOf(r.msg, rr); ok && rr.section == section {
			r.serial, r.has = s, true
		}
		return nil
	})
}

// Transfer tells whether a whole zone, or the way to its newest version, is wanted.
func (r *Request) Transfer() bool {
	return r.opcode == dns.OpcodeQuery && (r.q.typ == dns.TypeAXFR || r.q.typ == dns.TypeIXFR)
}

// Notify tells whether the message tells of a new version (RFC 1996).
func (r *Request) Notify() bool { return r.opcode == dns.OpcodeNotify }

// Zone returns the name that the message is about.
func (r *Request) Zone() string { return r.q.name }

// keyName is the key that the request is signed with, "" for none.
func (r *Request) keyName() string {
	if r.key == nil {
		return ""
	}
	return r.key.Name
}

// seal signs a reply where the request was signed.
func (r *Request) seal(msg []byte) []byte {
	if r.chain == nil {
		return msg
	}
	return r.chain.sign(msg)
}

// Fault writes the reply to a request whose signature does not hold; 0 where it
// does, or where there is none (RFC 8945 section 5.2).
func (r *Request) Fault(out []byte) int {
	if r.fault == 0 {
		return 0
	}
	msg := out[:answerTo(out, r.msg, r.q, dns.RcodeNotAuth, false)]
	if r.fault == badTime {
		// Signed, with our time: so the other side can tell whose clock is wrong.
		b := binary.BigEndian.AppendUint16(nil, 0)
		b = binary.BigEndian.AppendUint32(b, uint32(r.chain.now().Unix()))
		return copy(out, r.chain.signWith(msg, r.fault, b))
	}
	// There is no key in common to sign with: the record tells the error alone.
	s := &signature{name: r.sig.name, algorithm: r.sig.algorithm, signed: r.sig.signed,
		fudge: r.sig.fudge, id: binary.BigEndian.Uint16(msg), err: r.fault}
	return copy(out, s.append(msg))
}

// Sign appends the signature to a reply of n octets that the server has made, and
// returns its length. What has no room within limit is sent truncated: the client
// asks again over TCP.
func (r *Request) Sign(out []byte, n, limit int) int {
	if r.chain == nil || n == 0 {
		return n
	}
	if n+maxSignature > limit && r.q.end < n {
		n = answerTo(out, r.msg, r.q, int(out[3]&0xf), out[2]&4 != 0)
		out[2] |= 0x02
	}
	return copy(out, r.chain.sign(out[:n]))
}

// Datagram answers what came over UDP: a NOTIFY, or an IXFR by the SOA alone,
// which tells whether it is worth asking over TCP (RFC 1995 section 2). A false
// ok leaves the request to the server.
func (d *Desk) Datagram(r *Request, from netip.Addr, out []byte) (n int, ok bool) {
	if r.Notify() {
		return d.notified(r, from, out)
	}
	if r.q.typ != dns.TypeIXFR || !r.has {
		return 0, false
	}
	p, rcode := d.Out.permitted(r, from)
	if rcode != dns.RcodeSuccess {
		return r.reply(out, rcode), true
	}
	m := newPacker(r, out)
	m.add(p.zone.SOA())
	if n = copy(out, r.seal(m.close())); n > dns.MinMsgSize {
		n = answerTo(out, r.msg, r.q, dns.RcodeSuccess, true)
		out[2] |= 0x02 // come back over TCP
	}
	return n, true
}

// reply writes an answer without records.
func (r *Request) reply(out []byte, rcode int) int {
	return copy(out, r.seal(out[:answerTo(out, r.msg, r.q, rcode, rcode == dns.RcodeSuccess)]))
}

// notified passes a NOTIFY on (RFC 1996 section 4.7). Who has no zone from
// elsewhere does not speak it.
func (d *Desk) notified(r *Request, from netip.Addr, out []byte) (n int, ok bool) {
	if d.In == nil {
		return 0, false
	}
	return r.reply(out, d.In.notified(r, from)), true
}

// Stream answers over TCP: whole zones, message by message, and what Datagram
// does. The buffer holds one message; write takes each with the time it may take.
// A false ok leaves the request to the server.
func (d *Desk) Stream(r *Request, from netip.Addr, buf []byte, write func(msg []byte, limit time.Duration) error) (ok bool, err error) {
	timed := func(msg []byte) error { return write(msg, writeTimeout) }
	switch {
	case r.fault != 0:
		return true, timed(buf[:r.Fault(buf)])
	case r.Notify():
		n, ok := d.notified(r, from, buf)
		if !ok {
			return false, nil
		}
		return true, timed(buf[:n])
	case !r.Transfer():
		return false, nil
	case r.q.typ == dns.TypeIXFR && !r.has:
		return true, timed(buf[:r.reply(buf, dns.RcodeFormatError)]) // RFC 1995 section 3
	}
	p, rcode := d.Out.permitted(r, from)
	if rcode != dns.RcodeSuccess {
		return true, timed(buf[:r.reply(buf, rcode)])
	}
	return true, d.Out.send(r, p, buf, timed)
}
