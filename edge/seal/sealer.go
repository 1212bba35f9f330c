package seal

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
)

// Lengths of RFC 8446 section 5.2.
const (
	headerLen = 5
	tagLen    = 16
	ivLen     = 12
	// Overhead is what a record adds to its text: header, content type, tag.
	Overhead = headerLen + 1 + tagLen
	// MaxText is the most text a record of anybody may hold.
	MaxText = 1 << 14
	// MaxRecord is the longest record of anybody on the wire.
	MaxRecord = headerLen + maxCiphertext
	// maxCiphertext is the most a record's length field may say.
	maxCiphertext = MaxText + 256
)

// Content types (RFC 8446 section 5.1).
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeData             = 23
)

// errWiped: the secret is gone, and so is the right to seal anything.
var errWiped = errors.New("seal: secret is wiped")

// half is one direction: key, IV, and where the nonce and the additional data
// stand while the AEAD reads them, so that no record allocates.
type half struct {
	aead  cipher.AEAD
	iv    [ivLen]byte
	nonce [ivLen]byte
	limit uint64
}

func newHalf(t *Secret) (half, error) {
	a, iv, err := t.cipher()
	if err != nil {
		return half{}, fmt.Errorf("seal: keys of suite %d: %w", t.suite, err)
	}
	return half{aead: a, iv: iv, limit: t.suite.Limit()}, nil
}

// at sets the nonce of a record number (RFC 8446 section 5.3).
func (h *half) at(number uint64) []byte {
	h.nonce = h.iv
	tail := h.nonce[ivLen-8:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^number)
	return h.nonce[:]
}

// wipe forgets the key. The expanded key inside the AEAD is out of reach and
// left to the collector.
func (h *half) wipe() { *h = half{} }

// Sealer makes records of one direction, each by its number, in any order and
// as often as asked. It is not safe for concurrent use.
type Sealer struct{ half }

// NewSealer derives the keys of a secret.
func NewSealer(t *Secret) (*Sealer, error) {
	h, err := newHalf(t)
	return &Sealer{h}, err
}

// Wipe ends the Sealer: whatever it is asked for afterwards is an error.
func (s *Sealer) Wipe() { s.wipe() }

// seal makes the record in b, which is exactly as long as the record and has
// the text at headerLen already. It does not allocate.
func (s *Sealer) seal(b []byte, number uint64, typ byte) error {
	switch {
	case s.aead == nil:
		return errWiped
	case number >= s.limit:
		return fmt.Errorf("seal: record number %d, at most %d under one secret", number, s.limit)
	}
	n := len(b) - Overhead
	b[0], b[1], b[2] = typeData, 3, 3
	binary.BigEndian.PutUint16(b[3:], uint16(len(b)-headerLen))
	b[headerLen+n] = typ
	s.aead.Seal(b[headerLen:headerLen], s.at(number), b[headerLen:headerLen+n+1], b[:headerLen])
	return nil
}

// Alert appends an alert (RFC 8446 section 6) as the record of a number. The
// number must be one that no Stream has.
func (s *Sealer) Alert(b []byte, number uint64, a Alert) ([]byte, error) {
	at := len(b)
	b = append(b, make([]byte, alertRecord)...)
	copy(b[at+headerLen:], a.text())
	if err := s.seal(b[at:], number, typeAlert); err != nil {
		return b[:at], err
	}
	return b, nil
}
