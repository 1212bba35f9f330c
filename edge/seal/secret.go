package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// Suite is a cipher suite of TLS 1.3, numbered for records of sessions.
type Suite uint8

// The suites (RFC 8446 section B.4). The zero Suite is none.
const (
	AES128 Suite = 1 + iota
	AES256
	ChaCha20

	lastSuite = ChaCha20
)

// MaxSecret is the length of the longest secret, that of SHA-384.
const MaxSecret = sha512.Size384

// SuiteOf finds the suite by its number in TLS.
func SuiteOf(id uint16) (Suite, bool) {
	switch id {
	case tls.TLS_AES_128_GCM_SHA256:
		return AES128, true
	case tls.TLS_AES_256_GCM_SHA384:
		return AES256, true
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return ChaCha20, true
	}
	return 0, false
}

// Valid tells whether s is one of the suites.
func (s Suite) Valid() bool { return s >= AES128 && s <= lastSuite }

// SecretLen is the length of the suite's secrets, that of its hash.
func (s Suite) SecretLen() int {
	if s == AES256 {
		return sha512.Size384
	}
	return sha256.Size
}

// Limit is how many records may be sealed under one secret (RFC 8446 section
// 5.5: 2^24.5 for AES-GCM, and for ChaCha20-Poly1305 no limit that is ever
// reached). It is kept below 2^32 for all, so that a number fits 4 bytes.
func (s Suite) Limit() uint64 {
	if s == ChaCha20 {
		return 1<<32 - 1
	}
	return 1 << 24
}

func (s Suite) hash() func() hash.Hash {
	if s == AES256 {
		return sha512.New384
	}
	return sha256.New
}

func (s Suite) keyLen() int {
	if s == AES128 {
		return 16
	}
	return 32
}

func (s Suite) aead(key []byte) (cipher.AEAD, error) {
	if s == ChaCha20 {
		return chacha20poly1305.New(key)
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// Secret is the application traffic secret of one direction. It is a value so
// that it can be wiped where it stands; do not copy it about.
type Secret struct {
	suite Suite
	b     [MaxSecret]byte
}

// NewSecret takes over a copy of b, which must have the suite's length.
func NewSecret(s Suite, b []byte) (Secret, error) {
	if !s.Valid() || len(b) != s.SecretLen() {
		return Secret{}, fmt.Errorf("seal: secret of %d bytes for suite %d", len(b), s)
	}
	out := Secret{suite: s}
	copy(out.b[:], b)
	return out, nil
}

// Suite is the suite the secret was made for.
func (t *Secret) Suite() Suite { return t.suite }

// Bytes are the secret itself, not a copy.
func (t *Secret) Bytes() []byte { return t.b[:t.suite.SecretLen()] }

// Wipe overwrites the secret. What was derived from it is wiped elsewhere.
func (t *Secret) Wipe() {
	clear(t.b[:])
	t.suite = 0
}

// update replaces the secret by the next generation (RFC 8446 section 7.2).
func (t *Secret) update() error {
	next, err := t.expand("traffic upd", t.suite.SecretLen())
	if err != nil {
		return err
	}
	copy(t.b[:], next)
	clear(next)
	return nil
}

// Advance replaces the secret by the nth generation after it.
func (t *Secret) Advance(n int) error {
	for range n {
		if err := t.update(); err != nil {
			return err
		}
	}
	return nil
}

// expand is HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
func (t *Secret) expand(label string, n int) ([]byte, error) {
	if !t.suite.Valid() {
		return nil, errWiped
	}
	const prefix = "tls13 "
	info := make([]byte, 0, 4+len(prefix)+len(label))
	info = append(info, byte(n>>8), byte(n), byte(len(prefix)+len(label)))
	info = append(info, prefix...)
	info = append(info, label...)
	info = append(info, 0)
	return hkdf.Expand(t.suite.hash(), t.Bytes(), string(info), n)
}

// cipher derives write key and IV (RFC 8446 section 7.3).
func (t *Secret) cipher() (cipher.AEAD, [ivLen]byte, error) {
	var iv [ivLen]byte
	key, err := t.expand("key", t.suite.keyLen())
	if err != nil {
		return nil, iv, err
	}
	defer clear(key)
	b, err := t.expand("iv", ivLen)
	if err != nil {
		return nil, iv, err
	}
	copy(iv[:], b)
	clear(b)
	a, err := t.suite.aead(key)
	return a, iv, err
}
