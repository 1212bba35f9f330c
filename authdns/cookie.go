package authdns

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// Secret is the key of server cookies. All nodes that answer on one address share
// it: whoever holds a cookie of one of them may be sent to another by the routes.
type Secret [16]byte

// ParseSecrets reads secrets from a file's text: 32 hexadecimal digits on a line.
// The first makes cookies, all are accepted, so that a new one can be brought to
// every node before any uses it (RFC 9018 section 5). Lines with # are comments.
func ParseSecrets(text []byte) ([]Secret, error) {
	var out []Secret
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil || len(b) != len(Secret{}) { // the line itself is not for logs
			return nil, fmt.Errorf("authdns: cookie secrets: line %d: want 32 hexadecimal digits", i+1)
		}
		out = append(out, Secret(b))
	}
	if len(out) == 0 || len(out) > maxSecrets {
		return nil, fmt.Errorf("authdns: cookie secrets: %d of them: want 1 to %d", len(out), maxSecrets)
	}
	return out, nil
}

// maxSecrets bounds what a forged cookie costs: each secret is one hash.
const maxSecrets = 3

// Cookies in octets (RFC 7873 section 4, RFC 9018 section 4).
const (
	clientCookieLen = 8
	cookieLen       = 24 // client's and ours: version, reserved, time stamp, hash
	minServerLen    = 8
	maxServerLen    = 32
)

// The life of a server cookie in seconds (RFC 9018 section 4.3): how old it may be,
// how far ahead of our clock, and from which age on a new one is given.
const (
	cookieOld    = 3600
	cookieAhead  = 300
	cookieRenew  = 1800
	cookieFormat = 1 // version of RFC 9018
)

// cookieUse is what a request's cookie says of whoever sent it.
type cookieUse uint8

const (
	cookieNone   cookieUse = iota // none was sent, or none are spoken
	cookieClient                  // the client's part alone: a first contact
	cookieBad                     // with a server part that is not ours, or too old
	cookieGood                    // the client's address is no forgery
)

var cookieUses = [...]string{"none", "client", "bad", "good"}

// jar holds the secrets in force. It is immutable; nil speaks no cookies.
type jar struct{ secrets []Secret }

// wellFormed tells whether the data of a COOKIE option has a length that one may
// have; any other means FORMERR (RFC 7873 section 5.2.2).
func wellFormed(cookie []byte) bool {
	server := len(cookie) - clientCookieLen
	return server == 0 || server >= minServerLen && server <= maxServerLen
}

// judge writes the cookie for the reply into out and says what the one sent is
// worth. Time is in seconds of Unix modulo 2^32, as in cookies.
func (j *jar) judge(out *[cookieLen]byte, sent []byte, client netip.Addr, now uint32) cookieUse {
	if j == nil || sent == nil {
		return cookieNone
	}
	use := cookieClient
	if len(sent) > clientCookieLen {
		use = j.check(sent, client, now)
	}
	if use == cookieGood && now-binary.BigEndian.Uint32(sent[12:]) <= cookieRenew && j.secrets[0].made(sent, client) {
		copy(out[:], sent)
		return use
	}
	clear(out[:])
	copy(out[:], sent[:clientCookieLen])
	out[8] = cookieFormat
	binary.BigEndian.PutUint32(out[12:], now)
	binary.LittleEndian.PutUint64(out[16:], j.secrets[0].hash(out[:16], client))
	return use
}

// check judges a cookie that has a server part. Time stamps compare by serial
// number arithmetic (RFC 1982), which is what subtraction modulo 2^32 is.
func (j *jar) check(sent []byte, client netip.Addr, now uint32) cookieUse {
	if len(sent) != cookieLen || sent[8] != cookieFormat {
		return cookieBad
	}
	if age := int32(now - binary.BigEndian.Uint32(sent[12:])); age > cookieOld || age < -cookieAhead {
		return cookieBad
	}
	for i := range j.secrets {
		if j.secrets[i].made(sent, client) {
			return cookieGood
		}
	}
	return cookieBad
}

// made tells whether a cookie's hash is this secret's.
func (s *Secret) made(cookie []byte, client netip.Addr) bool {
	return s.hash(cookie[:16], client) == binary.LittleEndian.Uint64(cookie[16:])
}

// hash is that of a cookie without its own place, and of the client's address (RFC
// 9018 section 4.4), which is an IPv4 one as such. The reserved octets count as they
// came: a server may have set them.
func (s *Secret) hash(cookie []byte, client netip.Addr) uint64 {
	var in [32]byte
	n := copy(in[:], cookie)
	if client.Is4() {
		a := client.As4()
		n += copy(in[n:], a[:])
	} else {
		a := client.As16()
		n += copy(in[n:], a[:])
	}
	return sipHash(s, in[:n])
}
