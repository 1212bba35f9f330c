package token

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Times of a token.
const (
	// Life is how long after the last majority for its epoch a token is good.
	Life = 10 * time.Minute
	// Skew is how far the clocks of two sites may differ.
	Skew = 30 * time.Second
)

// Sizes of a token, in octets.
const (
	// MaxText bounds the text of a token.
	MaxText = 512
	// MaxPosition bounds the position in it.
	MaxPosition = 255

	version  = 1
	headSize = 1 + 2 + 2 // version, day, secret
	bodySize = 16 + 8 + 4 + 32 + 16 + 4 + 4
)

// Session names a session.
type Session [16]byte

// NewSession draws a name.
func NewSession() (s Session) {
	rand.Read(s[:]) // never fails (crypto/rand)
	return s
}

// String is the beginning of the name: enough to follow a session in a log.
func (s Session) String() string { return hex.EncodeToString(s[:4]) }

// Client is what binds a token to whoever holds a client's key: a digest of that
// key. The zero value binds to nobody.
type Client [16]byte

// ClientOf is the digest of a client's key; of an empty one it is zero.
func ClientOf(key string) (c Client) {
	if key != "" {
		sum := sha256.Sum256([]byte("rhumb token 1 client\x00" + key))
		copy(c[:], sum[:])
	}
	return c
}

// Claims are what a token says.
type Claims struct {
	Session  Session
	Epoch    uint64
	Service  uint32   // for which it was made
	Object   [32]byte // the object's or the stream's hash
	Client   Client
	Began    time.Time // when the session did, in whole seconds
	Expires  time.Time // in whole seconds, at most Life away
	Position string    // at most MaxPosition octets
}

// Expect is what must agree with the request that a token came with.
type Expect struct {
	Service uint32
	Object  [32]byte
	Client  Client
}

// Why a token is refused.
var (
	ErrMalformed = errors.New("is no token of this version")
	ErrKey       = errors.New("was sealed with a key that is not in force")
	ErrForged    = errors.New("was not sealed by this group")
	ErrExpired   = errors.New("has expired")
	ErrService   = errors.New("belongs to another service")
	ErrObject    = errors.New("belongs to another object")
	ErrClient    = errors.New("belongs to another client")
	ErrStale     = errors.New("is of an epoch that is over")
)

// Seal makes the text of a token.
func (k *Keys) Seal(c Claims, now time.Time) (string, error) {
	var nonce [chacha20poly1305.NonceSizeX]byte
	rand.Read(nonce[:]) // never fails; 192 random bits do not repeat
	return k.seal(nonce, c, now)
}

// seal is pure: the same nonce, claims and moment make the same text.
func (k *Keys) seal(nonce [chacha20poly1305.NonceSizeX]byte, c Claims, now time.Time) (string, error) {
	switch {
	case len(c.Position) > MaxPosition:
		return "", fmt.Errorf("token: position of %d octets, at most %d", len(c.Position), MaxPosition)
	case c.Expires.After(now.Add(Life)):
		return "", fmt.Errorf("token: life of %s, at most %s", c.Expires.Sub(now), Life)
	}
	key := k.at(now).keys[0]
	be := binary.BigEndian
	b := make([]byte, 0, headSize+len(nonce)+bodySize+len(c.Position)+chacha20poly1305.Overhead)
	b = append(b, version)
	b = be.AppendUint16(b, key.id.day)
	b = be.AppendUint16(b, key.id.secret)
	b = append(b, nonce[:]...)
	b = key.aead.Seal(b, nonce[:], appendClaims(nil, c), b[:headSize])
	return base64.RawURLEncoding.EncodeToString(b), nil
}

func appendClaims(b []byte, c Claims) []byte {
	be := binary.BigEndian
	b = append(b, c.Session[:]...)
	b = be.AppendUint64(b, c.Epoch)
	b = be.AppendUint32(b, c.Service)
	b = append(b, c.Object[:]...)
	b = append(b, c.Client[:]...)
	b = be.AppendUint32(b, uint32(c.Began.Unix()))
	b = be.AppendUint32(b, uint32(c.Expires.Unix()))
	return append(b, c.Position...)
}

// Open reads a token and checks all it says but the epoch, which only the
// keepers know. It returns claims with a nil error alone.
func (k *Keys) Open(text string, now time.Time, want Expect) (Claims, error) {
	c, err := k.unseal(text, now)
	if err == nil {
		err = c.check(now, want)
	}
	if err != nil {
		return Claims{}, fmt.Errorf("token: %w", err)
	}
	return c, nil
}

func (k *Keys) unseal(text string, now time.Time) (Claims, error) {
	// Strict: of two texts for one token the second is none.
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if len(text) > MaxText || err != nil || bytes.ContainsAny([]byte(text), "\r\n") ||
		len(b) < headSize+chacha20poly1305.NonceSizeX+bodySize+chacha20poly1305.Overhead || b[0] != version {
		return Claims{}, ErrMalformed
	}
	be := binary.BigEndian
	id := keyID{be.Uint16(b[1:]), be.Uint16(b[3:])}
	head, nonce, sealed := b[:headSize], b[headSize:headSize+chacha20poly1305.NonceSizeX], b[headSize+chacha20poly1305.NonceSizeX:]
	switch {
	case opens(id.day, now):
	case id.day < day(now): // whoever sealed it, it is of no use any more
		return Claims{}, ErrExpired
	default:
		return Claims{}, ErrKey
	}
	err = ErrKey
	for _, key := range k.at(now).keys {
		if key.id != id {
			continue // of two secrets with one id both are tried
		}
		if body, bad := key.aead.Open(nil, nonce, sealed, head); bad == nil {
			return readClaims(body), nil
		}
		err = ErrForged
	}
	return Claims{}, err
}

// readClaims reads what appendClaims wrote. The seal vouches for its length.
func readClaims(b []byte) (c Claims) {
	be := binary.BigEndian
	b = b[copy(c.Session[:], b):]
	c.Epoch, c.Service = be.Uint64(b), be.Uint32(b[8:])
	b = b[12:]
	b = b[copy(c.Object[:], b):]
	b = b[copy(c.Client[:], b):]
	c.Began, c.Expires = time.Unix(int64(be.Uint32(b)), 0).UTC(), time.Unix(int64(be.Uint32(b[4:])), 0).UTC()
	c.Position = string(b[8:])
	return c
}

func (c *Claims) check(now time.Time, want Expect) error {
	switch {
	case !now.Before(c.Expires):
		return ErrExpired
	case c.Service != want.Service:
		return ErrService
	case subtle.ConstantTimeCompare(c.Object[:], want.Object[:]) == 0:
		return ErrObject
	case c.Client != Client{} && subtle.ConstantTimeCompare(c.Client[:], want.Client[:]) == 0:
		return ErrClient
	}
	return nil
}
