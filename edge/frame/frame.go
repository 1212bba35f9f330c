package frame

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Version of the frames' layout, named in each of them.
const Version = 1

// MaxFrame bounds a frame's length field.
const MaxFrame = 128 << 10

// Type says what a frame asks or tells.
type Type uint8

const (
	// Hello opens a link; the payload is the sender's site.
	Hello Type = 1 + iota
	// RecordSet tells a Backup a session's record (payload). Numbered.
	RecordSet
	// Retire tells a Backup that a session ended. Numbered.
	Retire
	// Ack acknowledges all numbered frames up to Seq.
	Ack
	// Full refuses a RecordSet: the Backup has no room for this session.
	Full
	// Pull asks the owner to hand a session to the sender.
	Pull
	// OfferSession ships a session (payload: Offer); both sides are silent.
	OfferSession
	// Ready answers an offer: the connection stands here, silent.
	Ready
	// Commit gives the session away: the sender will not go on with it
	// unless the receiver itself answers Refused.
	Commit
	// Active answers Commit: the session speaks here.
	Active
	// Abort takes an offer back.
	Abort
	// Refused answers Pull, OfferSession or Commit: no; payload is the reason.
	Refused
	// Recall asks a Backup for the records of the sender's sessions: its
	// process died and another stands in its place.
	Recall
	// Recalled gives one back (payload: Record). The epoch is the next one:
	// the session is the receiver's again, and nobody else's.
	Recalled
	// Claimed tells the owner of a session that the sender, its Backup, goes
	// on with it under this epoch. An owner of a lower one falls silent.
	Claimed

	lastType = Claimed

	// Tokens carries a word about a resumption token's session (payload: that of
	// package token). It stands apart, so that the types above can go on.
	Tokens Type = 64

	// ObjectName tells a Backup by which name a service has an object (payload: Name).
	ObjectName Type = 80

	// OfferGuest ships a session of another server (payload: Guest); the answers are
	// those to OfferSession. GuestPart carries bytes of its queues, ahead of it.
	OfferGuest Type = 96
	GuestPart  Type = 97
	// Uploads carries a word about an object that is being uploaded (payload: that of
	// package upload). An answer has the number of what it answers.
	Uploads Type = 112
	// Deposit tells a site a session's record (payload) that it keeps for its owner's next
	// process alone: it would not go on with the session itself. Numbered.
	Deposit Type = 128
)

// TakesDeposits is said by the Generation of a Hello beside ReadsNames: the sender knows
// frames of type Deposit. To one who does not say it none are sent.
const TakesDeposits = 16

// known reports whether there is such a type.
func (t Type) known() bool {
	switch t {
	case Tokens, ObjectName, OfferGuest, GuestPart, Uploads, Deposit:
		return true
	}
	return t != 0 && t <= lastType
}

func (t Type) String() string {
	names := [...]string{"hello", "record", "retire", "ack", "full", "pull", "offer", "ready", "commit", "active", "abort", "refused",
		"recall", "recalled", "claimed"}
	switch t {
	case Tokens:
		return "tokens"
	case ObjectName:
		return "name"
	case OfferGuest:
		return "offer of a guest"
	case GuestPart:
		return "part of a guest"
	case Uploads:
		return "upload"
	case Deposit:
		return "deposit"
	}
	if t == 0 || t > lastType {
		return fmt.Sprintf("type %d", uint8(t))
	}
	return names[t-1]
}

// Frame is one message between two sites. Frames of one hand-off carry the
// session's key, epoch and generation; a receiver refuses lower ones.
type Frame struct {
	Type       Type
	Seq        uint64 // numbered frames and Ack; else 0
	Key        Key    // zero: about no session
	Epoch      uint64
	Generation uint32
	Payload    []byte
}

// Append encodes f behind b, length first. A key that is set must be Valid.
func Append(b []byte, f Frame) ([]byte, error) {
	if f.Key != (Key{}) && !f.Key.Valid() {
		return b, fmt.Errorf("frame: %s: key %s cannot be encoded", f.Type, f.Key)
	}
	be, at := binary.BigEndian, len(b)
	b = append(b, 0, 0, 0, 0, Version, byte(f.Type), f.Key.family())
	b = be.AppendUint64(b, f.Seq)
	b = be.AppendUint64(b, f.Epoch)
	b = be.AppendUint32(b, f.Generation)
	b = appendKey(b, f.Key)
	b = append(b, f.Payload...)
	n := len(b) - at - 4
	if n > MaxFrame {
		return b[:at], fmt.Errorf("frame: %s of %d bytes, at most %d", f.Type, n, MaxFrame)
	}
	be.PutUint32(b[at:], uint32(n))
	return b, nil
}

// Decode reads one frame without its length field. The payload shares b.
func Decode(b []byte) (Frame, error) {
	r := reader{b: b}
	if v := r.u8(); v != Version {
		r.fail(fmt.Errorf("version %d, this site speaks %d", v, Version))
	}
	f := Frame{Type: Type(r.u8())}
	family := r.u8()
	f.Seq, f.Epoch, f.Generation = r.u64(), r.u64(), r.u32()
	f.Key = r.key(family)
	if !f.Type.known() {
		r.fail(fmt.Errorf("unknown %s", f.Type))
	}
	if r.err != nil {
		return Frame{}, fmt.Errorf("frame: %d bytes: %w", len(b), r.err)
	}
	if len(r.b) > 0 {
		f.Payload = r.b
	}
	return f, nil
}

// Read takes one frame off r. The payload is the caller's.
func Read(r io.Reader) (Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return Frame{}, fmt.Errorf("frame: length %d, at most %d", n, MaxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return Frame{}, fmt.Errorf("frame: body of %d bytes: %w", n, err)
	}
	return Decode(b)
}
