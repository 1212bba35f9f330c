package transfer

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/miekg/dns"
)

// fudge is by how much the clocks of both sides may differ (RFC 8945 section 10).
const fudge = 300 * time.Second

// The errors of a signature (RFC 8945 section 3), as a TSIG record carries them.
const (
	badSig  = dns.RcodeBadSig
	badKey  = dns.RcodeBadKey
	badTime = dns.RcodeBadTime
	// badTrunc: a MAC shorter than RFC 8945 section 5.2.2.1 lets pass.
	badTrunc = dns.RcodeBadTrunc
)

// signature is a TSIG record as it stands at the end of a message.
type signature struct {
	start           int    // of the record in the message
	name, algorithm string // canonical
	signed          uint64 // seconds since 1970
	fudge           uint16
	mac             []byte
	id, err         uint16 // of the message as it was signed; of the signature
	other           []byte
}

var errMalformed = errors.New("malformed message")

// findSignature returns the TSIG record of a message, nil where there is none. It
// must be the last record, and the only one (RFC 8945 section 5.1).
func findSignature(msg []byte) (*signature, error) {
	var found *signature
	err := walk(msg, func(r record) error {
		switch {
		case found != nil:
			return errMalformed
		case r.typ == dns.TypeTSIG:
			if r.section != additional {
				return errMalformed
			}
			s, err := readSignature(msg, r)
			found = s
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// readSignature takes a TSIG record apart (RFC 8945 section 4.2).
func readSignature(msg []byte, r record) (*signature, error) {
	name, _, err := dns.UnpackDomainName(msg, r.start)
	if err != nil || r.class != dns.ClassANY || r.ttl != 0 {
		return nil, errMalformed
	}
	end := r.data + r.size
	algorithm, off, err := dns.UnpackDomainName(msg[:end], r.data)
	if err != nil || off+10 > end {
		return nil, errMalformed
	}
	s := &signature{start: r.start, name: dns.CanonicalName(name), algorithm: dns.CanonicalName(algorithm)}
	s.signed = uint64(binary.BigEndian.Uint16(msg[off:]))<<32 | uint64(binary.BigEndian.Uint32(msg[off+2:]))
	s.fudge = binary.BigEndian.Uint16(msg[off+6:])
	n := int(binary.BigEndian.Uint16(msg[off+8:]))
	off += 10
	if off+n+6 > end {
		return nil, errMalformed
	}
	s.mac = msg[off : off+n]
	off += n
	s.id, s.err = binary.BigEndian.Uint16(msg[off:]), binary.BigEndian.Uint16(msg[off+2:])
	n = int(binary.BigEndian.Uint16(msg[off+4:]))
	if off+6+n != end {
		return nil, errMalformed
	}
	s.other = msg[off+6 : end]
	return s, nil
}

// stripped is the message as it was signed: without the TSIG record, under the id
// which it had then (a forwarder may have changed it).
func (s *signature) stripped(msg []byte) []byte {
	out := bytes.Clone(msg[:s.start])
	binary.BigEndian.PutUint16(out, s.id)
	binary.BigEndian.PutUint16(out[10:], binary.BigEndian.Uint16(out[10:])-1)
	return out
}

// timers writes what every signature covers (RFC 8945 section 5.3.1).
func (s *signature) timers(h hash.Hash) {
	b := binary.BigEndian.AppendUint16(nil, uint16(s.signed>>32))
	b = binary.BigEndian.AppendUint32(b, uint32(s.signed))
	h.Write(binary.BigEndian.AppendUint16(b, s.fudge))
}

// variables writes what the first signature of an exchange covers besides
// (RFC 8945 section 4.3.3).
func (s *signature) variables(h hash.Hash) {
	h.Write(wireName(s.name))
	h.Write([]byte{0, dns.ClassANY, 0, 0, 0, 0})
	h.Write(wireName(s.algorithm))
	s.timers(h)
	b := binary.BigEndian.AppendUint16(nil, s.err)
	h.Write(binary.BigEndian.AppendUint16(b, uint16(len(s.other))))
	h.Write(s.other)
}

// wireName is a name uncompressed; one that does not fit was never read or configured.
func wireName(name string) []byte {
	b := make([]byte, 256)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		return nil
	}
	return b[:n]
}

// append writes the record behind a message and counts it.
func (s *signature) append(msg []byte) []byte {
	rdata := wireName(s.algorithm)
	rdata = binary.BigEndian.AppendUint16(rdata, uint16(s.signed>>32))
	rdata = binary.BigEndian.AppendUint32(rdata, uint32(s.signed))
	rdata = binary.BigEndian.AppendUint16(rdata, s.fudge)
	rdata = binary.BigEndian.AppendUint16(rdata, uint16(len(s.mac)))
	rdata = append(rdata, s.mac...)
	rdata = binary.BigEndian.AppendUint16(rdata, s.id)
	rdata = binary.BigEndian.AppendUint16(rdata, s.err)
	rdata = binary.BigEndian.AppendUint16(rdata, uint16(len(s.other)))
	rdata = append(rdata, s.other...)

	msg = append(msg, wireName(s.name)...)
	msg = append(msg, 0, byte(dns.TypeTSIG), 0, dns.ClassANY, 0, 0, 0, 0)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(rdata)))
	msg = append(msg, rdata...)
	binary.BigEndian.PutUint16(msg[10:], binary.BigEndian.Uint16(msg[10:])+1)
	return msg
}

// maxSignature is the most that append adds: both names, the longest MAC, and the
// time of the server in other.
const maxSignature = 255 + 10 + 255 + 10 + 64 + 6 + 6

// chain is one side of a signed exchange. Each signature covers the one before
// it: the reply's the request's, and each message of a stream the message before
// (RFC 8945 sections 5.3 and 5.3.1). It is used by one goroutine.
type chain struct {
	key *Key
	now func() time.Time

	mac []byte // the last one of the exchange; nil before the request is signed
	// stream is set once a first reply was signed or checked: from there on
	// signatures cover the timers alone.
	stream bool
	// open collects messages of the stream that came unsigned since the last signature.
	open    []byte
	skipped int
}

// digest starts the MAC over what a signature covers.
func (c *chain) digest(s *signature, msg []byte) []byte {
	h := c.key.mac()
	if c.mac != nil {
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(c.mac))))
		h.Write(c.mac)
	}
	h.Write(c.open)
	h.Write(msg)
	if c.stream {
		s.timers(h)
	} else {
		s.variables(h)
	}
	return h.Sum(nil)
}

// sign appends the signature of a message which is sent.
func (c *chain) sign(msg []byte) []byte { return c.signWith(msg, 0, nil) }

// signWith signs a message with an error (RFC 8945 section 5.3.2).
func (c *chain) signWith(msg []byte, code uint16, other []byte) []byte {
	s := c.blank(msg, code, other)
	first := c.mac == nil
	s.mac = c.digest(s, msg)
	c.advance(s.mac, !first)
	return s.append(msg)
}

// blank is the record of a message to be sent, without its MAC.
func (c *chain) blank(msg []byte, code uint16, other []byte) *signature {
	return &signature{name: c.key.Name, algorithm: c.key.Algorithm, signed: uint64(c.now().Unix()),
		fudge: uint16(fudge / time.Second), id: binary.BigEndian.Uint16(msg), err: code, other: other}
}

// advance goes on to the next message of the exchange.
func (c *chain) advance(mac []byte, stream bool) {
	c.mac, c.stream, c.open, c.skipped = bytes.Clone(mac), stream, nil, 0
}

// check judges a received message; s is its signature. 0 means that it holds.
func (c *chain) check(s *signature, msg []byte) uint16 {
	full := hashOf(c.key.Algorithm)().Size()
	switch {
	case s.algorithm != c.key.Algorithm || s.name != c.key.Name:
		return badKey
	case len(s.mac) > full:
		return badSig
	case len(s.mac) < max(10, full/2):
		return badTrunc
	}
	want := c.digest(s, s.stripped(msg))
	if !hmac.Equal(want[:len(s.mac)], s.mac) {
		return badSig
	}
	// Only a time which is signed is worth looking at (RFC 8945 section 5.2.3).
	apart := c.now().Sub(time.Unix(int64(s.signed), 0)).Abs()
	if apart > time.Duration(s.fudge)*time.Second {
		return badTime
	}
	return 0
}

// maxSkipped is how many messages of a stream may come unsigned in a row
// (RFC 8945 section 5.3.1: at least every 100th is signed).
const maxSkipped = 99

// receive checks the next message of a reply and returns it without signature;
// last tells that nothing may follow. A nil chain takes unsigned messages only.
func (c *chain) receive(msg []byte, last bool) ([]byte, error) {
	s, err := findSignature(msg)
	switch {
	case err != nil:
		return nil, err
	case c == nil:
		return msg, nil
	case s == nil:
		c.skipped++
		c.open = append(c.open, msg...)
		if !c.stream || last || c.skipped > maxSkipped {
			return nil, errors.New("the reply is not signed")
		}
		return msg, nil
	case s.err != 0:
		return nil, fmt.Errorf("the primary does not accept our signature: %s", errorName(s.err))
	}
	if code := c.check(s, msg); code != 0 {
		return nil, fmt.Errorf("the reply's signature does not hold: %s", errorName(code))
	}
	c.advance(s.mac, true)
	return s.stripped(msg), nil
}

// errorName names an error of a signature; 16 means two things, here BADSIG.
func errorName(code uint16) string {
	if code == badSig {
		return "BADSIG"
	}
	if s, ok := dns.RcodeToString[int(code)]; ok {
		return s
	}
	return fmt.Sprintf("error %d", code)
}
