package forward

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// The tunnel's datagram, in UDP between the unicast addresses of two sites.
// All of it is authenticated, nothing is hidden: what it carries has crossed
// the Internet in this form already.
//
//	 0  version (4 bits), kind (4 bits)
//	 1  flags, zero
//	 2  hops: 2 of what a relay shall pass on, 1 of all else
//	 3  key id
//	 4  sender, 4
//	 8  salt, 4
//	12  sequence, 8
//	20  body
//	    tag, 12
//
// The tag is AES-256-GMAC (NIST SP 800-38D) with the nonce salt and sequence,
// under a key of its own for each direction of a pair. The sequence begins
// with the wall clock in nanoseconds, so that a restarted sender stands above
// its own past; the salt is random for each start, so that a clock set back
// doesn't repeat a nonce.
const (
	tunnelVersion = 1
	headerSize    = 20
	tagSize       = 12
	// overhead is what the tunnel adds to a packet, without UDP and IP.
	overhead = headerSize + tagSize

	// oneHop stands in what is for the receiver itself; nobody passes it on. twoHops
	// stands in what a relay passes on, when it has taken this header off: what it
	// sends has one hop left, whatever else it says.
	oneHop, twoHops = 1, 2
)

// kind tells what a datagram's body is.
type kind uint8

const (
	kindPacket   kind = 1 + iota // an IP packet
	kindPart                     // a part of one
	kindAsk                      // a flow: do you own it?
	kindMine                     // a flow: yes
	kindNotMine                  // a flow: no
	kindGone                     // a flow: you tunnelled to me what I no longer have
	kindMoved                    // a flow, the 4-octet id of the site it went to
	kindAnnounce                 // 8-octet digests of flows

	// What stands below is of a later version; sites of the first count it as
	// datagrams of an unknown kind and do no more.
	kindHello   // are you there, and do you hear me? (hello.go)
	kindRelay   // the 4-octet id of a site, and a datagram for it (relay.go)
	kindRefused // an id, and why what was for that site wasn't passed on
	kindNarrow  // an id, and the largest body that the way to that site takes
	kindKept    // a flow, the 4-octet id of its owner: no, but I would revive it
	kindEnd
)

// hops is what stands in the header of a kind.
func (k kind) hops() byte {
	if k == kindRelay {
		return twoHops
	}
	return oneHop
}

var (
	errVersionOrKind = errors.New("unknown version or kind")
	errHops          = errors.New("tunnelled more than once")
	errTag           = errors.New("wrong tag")
)

// siteID is the short name of a site on the wire.
type siteID [4]byte

// idOf shortens a site's name. Lists with two names of one id are refused.
func idOf(site string) siteID {
	sum := sha256.Sum256([]byte(site))
	return siteID(sum[:4])
}

// head is a datagram's header, read but not yet believed: only the tag proves
// that the sender wrote it.
type head struct {
	kind   kind
	keyID  byte
	sender siteID
	seq    uint64
}

// readHead checks the form of a datagram.
func readHead(b []byte) (head, error) {
	if len(b) < overhead {
		return head{}, errShort
	}
	h := head{kind: kind(b[0] & 15), keyID: b[3], sender: siteID(b[4:8]), seq: binary.BigEndian.Uint64(b[12:])}
	if b[0]>>4 != tunnelVersion || h.kind < kindPacket || h.kind >= kindEnd || b[1] != 0 {
		return head{}, errVersionOrKind
	}
	if b[2] != h.kind.hops() {
		return head{}, errHops
	}
	return h, nil
}

// seal is one direction of a pair: what makes and checks its tags. It is
// immutable.
type seal struct {
	id   byte
	aead cipher.AEAD
}

// newSeal derives the key for datagrams from one site to another.
func newSeal(pair [32]byte, from, to string) (seal, error) {
	mac := hmac.New(sha256.New, pair[:])
	fmt.Fprintf(mac, "rhumb tunnel 1\x00%s\x00%s", from, to)
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return seal{}, fmt.Errorf("forward: tunnel key: %w", err)
	}
	aead, err := cipher.NewGCMWithTagSize(block, tagSize)
	if err != nil {
		return seal{}, fmt.Errorf("forward: tunnel key: %w", err)
	}
	sum := sha256.Sum256(pair[:])
	return seal{id: sum[0], aead: aead}, nil
}

// close completes a datagram: b holds header room and body.
func (s seal) close(b []byte, k kind, sender siteID, salt [4]byte, seq uint64) []byte {
	b[0], b[1], b[2], b[3] = tunnelVersion<<4|byte(k), 0, k.hops(), s.id
	copy(b[4:], sender[:])
	copy(b[8:], salt[:])
	binary.BigEndian.PutUint64(b[12:], seq)
	return s.aead.Seal(b, b[8:headerSize], nil, b)
}

// open checks the tag of a datagram and returns its body.
func (s seal) open(b []byte) ([]byte, error) {
	end := len(b) - tagSize
	if end < headerSize {
		return nil, errShort
	}
	if _, err := s.aead.Open(nil, b[8:headerSize], b[end:], b[:end]); err != nil {
		return nil, errTag
	}
	return b[headerSize:end], nil
}
