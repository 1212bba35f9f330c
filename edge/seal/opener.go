package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrUpdateRequested: the peer wants our key to change too (RFC 8446 section
// 4.6.3). Our records are numbered from the first secret on, so the connection
// ends instead, in order.
var ErrUpdateRequested = errors.New("seal: peer requests a key update")

// MaxUpdates bounds the KeyUpdates of a peer. Each costs us three derivations
// and them one small record.
const MaxUpdates = 64

// maxEmpty bounds records without a byte of text in a row.
const maxEmpty = 32

// Opener opens the peer's records, which come in order. Bytes are fed as they
// arrive, in any pieces. It is not safe for concurrent use.
type Opener struct {
	half
	secret  *Secret // rotated here by KeyUpdate; the owner wipes it
	number  uint64  // of the next record
	raw     []byte  // fed, not opened
	updates int
	empty   int
}

// NewOpener goes on at a record number. The Opener keeps t and changes it when
// the peer updates its key.
func NewOpener(t *Secret, number uint64) (*Opener, error) {
	h, err := newHalf(t)
	return &Opener{half: h, secret: t, number: number}, err
}

// Number is that of the next record.
func (o *Opener) Number() uint64 { return o.number }

// Raw is what was fed and not opened, not a copy.
func (o *Opener) Raw() []byte { return o.raw }

// Feed adds bytes that arrived.
func (o *Opener) Feed(b []byte) { o.raw = append(o.raw, b...) }

// Wipe ends the Opener.
func (o *Opener) Wipe() {
	o.wipe()
	clear(o.raw)
	o.raw = nil
}

// Next appends the text of the next record to b. wire is the length of the
// record; 0 means that it has not arrived whole. A record that is no data has
// no text. The error is an Alert to send, Heard if the peer ends the
// connection, or ErrUpdateRequested; nothing can be opened after one.
func (o *Opener) Next(b []byte) (text []byte, wire int, err error) {
	if len(o.raw) < headerLen {
		return b, 0, nil
	}
	n := int(binary.BigEndian.Uint16(o.raw[3:]))
	switch {
	case o.aead == nil:
		return b, 0, errWiped
	case o.raw[0] != typeData || o.raw[1] != 3 || o.raw[2] != 3:
		// RFC 8446 section 5: an alert in clear, a change_cipher_spec after the
		// handshake, or no TLS at all.
		return b, 0, UnexpectedMessage
	case n > maxCiphertext:
		return b, 0, RecordOverflow
	case n < tagLen+1:
		return b, 0, BadRecordMAC
	case o.number >= o.limit:
		return b, 0, fmt.Errorf("seal: peer sealed %d records under one secret", o.number)
	case len(o.raw) < headerLen+n:
		return b, 0, nil
	}
	b, err = o.open(b, o.raw[:headerLen+n])
	clear(o.raw[:headerLen+n])
	o.raw = o.raw[headerLen+n:]
	if len(o.raw) == 0 {
		o.raw = nil // a connection at rest keeps no buffer
	}
	return b, headerLen + n, err
}

// open opens one whole record in place and appends its text to b.
func (o *Opener) open(b, record []byte) ([]byte, error) {
	p, err := o.aead.Open(record[headerLen:headerLen], o.at(o.number), record[headerLen:], record[:headerLen])
	if err != nil {
		return b, BadRecordMAC
	}
	o.number++
	// The content type is the last byte that is not padding (RFC 8446 section
	// 5.4); a record of padding alone is unexpected.
	end := len(p) - 1
	for end >= 0 && p[end] == 0 {
		end--
	}
	if end < 0 {
		return b, UnexpectedMessage
	}
	typ, p := p[end], p[:end]
	if len(p) > MaxText {
		return b, RecordOverflow
	}
	if len(p) == 0 {
		if o.empty++; o.empty > maxEmpty || typ != typeData {
			return b, UnexpectedMessage // RFC 8446 section 5.1: only data may be empty
		}
		return b, nil
	}
	o.empty = 0
	switch typ {
	case typeData:
		return append(b, p...), nil
	case typeAlert:
		return b, heard(p)
	case typeHandshake:
		return b, o.handshake(p)
	}
	return b, UnexpectedMessage
}

// heard reads an alert (RFC 8446 section 6). Its level is not looked at; of the
// closure alerts user_canceled announces a close_notify and is nothing by itself.
func heard(p []byte) error {
	switch {
	case len(p) != 2:
		return DecodeError
	case Alert(p[1]) == userCanceled:
		return nil
	}
	return Heard{Alert(p[1])}
}

// handshake takes the one handshake message that a client without a client
// certificate may send: KeyUpdate, alone in its record since the key changes
// behind it (RFC 8446 sections 4.6.3 and 5.1).
func (o *Opener) handshake(p []byte) error {
	const keyUpdate = 24
	if len(p) != 5 || p[0] != keyUpdate || p[1] != 0 || p[2] != 0 || p[3] != 1 {
		return UnexpectedMessage
	}
	switch p[4] {
	case 0:
	case 1:
		return ErrUpdateRequested
	default:
		return Alert(47) // illegal_parameter
	}
	if o.updates++; o.updates > MaxUpdates {
		return UnexpectedMessage
	}
	if err := o.secret.update(); err != nil {
		return err
	}
	h, err := newHalf(o.secret)
	if err != nil {
		return err
	}
	o.half, o.number = h, 0
	return nil
}
