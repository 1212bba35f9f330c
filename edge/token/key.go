package token

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Secret is what the sites of a group share; keys are derived from it.
type Secret [32]byte

// maxSecrets bounds how many are in force while one replaces another.
const maxSecrets = 3

// ParseSecrets reads secrets from a file's text: 64 hexadecimal digits on a line.
// Empty lines and those that begin with # are left out. The first seals, all open.
func ParseSecrets(text []byte) ([]Secret, error) {
	var out []Secret
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		b, err := hex.DecodeString(string(line))
		if err != nil || len(b) != len(Secret{}) { // the line itself is not for logs
			return nil, fmt.Errorf("token: secrets: line %d: want 64 hexadecimal digits", i+1)
		}
		out = append(out, Secret(b))
	}
	if len(out) == 0 || len(out) > maxSecrets {
		return nil, fmt.Errorf("token: secrets: %d of them: want 1 to %d", len(out), maxSecrets)
	}
	return out, nil
}

// Keys seal and open tokens. Safe for concurrent use.
type Keys struct {
	secrets []Secret
	days    atomic.Pointer[threeDays] // derived last
}

// NewKeys makes keys of at least one secret; the first seals.
func NewKeys(secrets []Secret) (*Keys, error) {
	if len(secrets) == 0 {
		return nil, errors.New("token: no secret")
	}
	return &Keys{secrets: append([]Secret(nil), secrets...)}, nil
}

// threeDays are the keys around one day. Which of them may open is decided by
// the moment, not by what is derived.
type threeDays struct {
	middle uint16
	keys   []dayKey // of the first secret and the middle day first
}

// dayKey is one secret's key for one day.
type dayKey struct {
	id   keyID
	aead cipher.AEAD
}

// keyID tells which key sealed a token. It is no secret: the day, and two
// octets derived from the secret.
type keyID struct{ day, secret uint16 }

// day counts days of Unix time: 16 bits last until 2149.
func day(t time.Time) uint16 { return uint16(t.Unix() / (24 * 3600)) }

// at returns the keys around a moment, derived at the first use of each day.
func (k *Keys) at(now time.Time) *threeDays {
	d := day(now)
	if have := k.days.Load(); have != nil && have.middle == d {
		return have
	}
	next := &threeDays{middle: d}
	for _, n := range [...]uint16{d, d - 1, d + 1} {
		for i := range k.secrets {
			next.keys = append(next.keys, derive(&k.secrets[i], n))
		}
	}
	k.days.Store(next)
	return next
}

// derive makes a day's key (HKDF with SHA-256, RFC 5869). The secret has 256
// random bits, so it needs no salt.
func derive(s *Secret, day uint16) dayKey {
	id := expand(s, "rhumb token 1 id", 2)
	key := expand(s, "rhumb token 1 day "+strconv.Itoa(int(day)), chacha20poly1305.KeySize)
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // only a wrong length
	}
	return dayKey{keyID{day, binary.BigEndian.Uint16(id)}, aead}
}

func expand(s *Secret, info string, n int) []byte {
	out, err := hkdf.Key(sha256.New, s[:], nil, info, n)
	if err != nil {
		panic(err) // only a length beyond 255 hashes, or a FIPS policy against SHA-256
	}
	return out
}

// opens tells whether a key of a day may open tokens at a moment: that of the
// day, and around midnight that of the day before, as long as its tokens live,
// or of the day after, as far as clocks differ. Never more than two.
func opens(d uint16, now time.Time) bool {
	return d == day(now) || d == day(now.Add(-Life-Skew)) || d == day(now.Add(Skew))
}
