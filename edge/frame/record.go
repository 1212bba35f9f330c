package frame

import (
	"encoding/binary"
	"fmt"
)

// The layouts of a Record: of a session in clear, and of one over TLS, whose four
// sizes take six bytes each. A site refuses layouts it does not know.
const (
	layoutClear   = 1
	layoutCovered = 2
)

// layout is the one that a record of a suite has.
func layout(suite uint8) uint8 {
	if suite == suiteNone {
		return layoutClear
	}
	return layoutCovered
}

// Flags of a Record.
type Flags uint8

const (
	// Head: the request was HEAD, the response has no body.
	Head Flags = 1 << iota
	// Close: the connection ends after this response.
	Close
	// KeepAlive10: an HTTP/1.0 client asked for keep-alive and is told so.
	KeepAlive10
	// Pinned: the response is no function of record and object yet.
	Pinned
	// Idle: no response was begun; the wire offset is 0 of nothing.
	Idle
	// Last: the connection ends behind this response, without a word under TLS.
	Last
	// Upload: the client sends an object, from RcvNxt on. The response has not begun,
	// but for the word that it may send (status 100).
	Upload

	knownFlags = Head | Close | KeepAlive10 | Pinned | Idle | Last | Upload
)

// Record is the soft state of one session. The wire bytes of the response in
// progress are a pure function of it and of the object it names. Sequence
// numbers are modulo 2^32 and Offset says in which round they are, so the
// owner refreshes the record at least every 1 GB.
type Record struct {
	Key        Key
	Epoch      uint64 // rises with each takeover; the lower one is refused
	Generation uint32 // rises with each dump
	Flags      Flags
	Template   uint8    // version of the response head's template
	Service    uint32   // digest of the service's name
	Status     uint16   // HTTP status of the response
	Media      uint16   // content type, by its number in the template
	Base       uint32   // write_seq at wire offset 0 of the response
	RcvNxt     uint32   // after the request
	MSS        uint16   // of the connection, with the next two
	Scales     uint8    // send scale in the low half, receive scale in the high
	Options    uint8    // bits: 1 timestamps, 2 SACK, 4 scaling
	TSVal      uint32   // last timestamp, milliseconds
	Wall       int64    // Unix milliseconds when TSVal was read
	Object     [32]byte // SHA-256 over the object's block hashes; zero: none
	Size       uint64   // of the object; over TLS this and the next three stay below 2^48
	Start      uint64   // first byte of the object that is sent
	Length     uint64   // count of bytes of the object that are sent
	Offset     uint64   // bytes of the response that had been written
	Date       uint32   // Unix second printed in Date
	Cover      Cover    // of a session over TLS
}

// MaxRecord is the size of the largest encoded Record: IPv6, secrets of SHA-384.
const MaxRecord = 256

// AppendRecord encodes rec behind b. The key must be Valid.
func AppendRecord(b []byte, rec Record) []byte {
	be := binary.BigEndian
	b = append(b, layout(rec.Cover.Suite), rec.Key.family()|rec.Cover.Suite<<4, byte(rec.Flags), rec.Template)
	b = be.AppendUint32(b, rec.Service)
	b = be.AppendUint16(b, rec.Status)
	b = be.AppendUint16(b, rec.Media)
	b = appendKey(b, rec.Key)
	b = be.AppendUint64(b, rec.Epoch)
	b = be.AppendUint32(b, rec.Generation)
	b = be.AppendUint32(b, rec.Base)
	b = be.AppendUint32(b, rec.RcvNxt)
	b = be.AppendUint16(b, rec.MSS)
	b = append(b, rec.Scales, rec.Options)
	b = be.AppendUint32(b, rec.TSVal)
	b = be.AppendUint64(b, uint64(rec.Wall))
	b = append(b, rec.Object[:]...)
	for _, v := range [...]uint64{rec.Size, rec.Start, rec.Length, rec.Offset} {
		if rec.Cover.Suite == suiteNone {
			b = be.AppendUint64(b, v)
		} else {
			b = be.AppendUint32(be.AppendUint16(b, uint16(v>>32)), uint32(v))
		}
	}
	b = be.AppendUint32(b, rec.Date)
	return appendCover(b, &rec.Cover)
}

// ReadsPieces is said by the Generation of a Hello: the sender reads records that have,
// behind them, what has come of the next request. Who says nothing gets records alone.
const ReadsPieces = 8

// DecodePiece reads what AppendRecord wrote and what follows it: the beginning of the
// next request, received from RcvNxt on and not answered. The piece shares no memory with b.
func DecodePiece(b []byte) (Record, []byte, error) {
	r := reader{b: b}
	rec := r.record()
	piece := append([]byte(nil), r.bytes(r.count(len(r.b), MaxInput))...)
	switch {
	case len(piece) > 0 && rec.Cover.Suite != suiteNone:
		r.fail(fmt.Errorf("piece of a request over TLS"))
	case len(piece) > 0 && rec.Flags&Upload != 0:
		r.fail(fmt.Errorf("piece of a request behind an upload"))
	}
	if err := r.end(); err != nil {
		return Record{}, nil, fmt.Errorf("frame: record of %d bytes: %w", len(b), err)
	}
	return rec, piece, nil
}

// DecodeRecord reads what AppendRecord wrote, and nothing else.
func DecodeRecord(b []byte) (Record, error) {
	r := reader{b: b}
	rec := r.record()
	if err := r.end(); err != nil {
		return Record{}, fmt.Errorf("frame: record of %d bytes: %w", len(b), err)
	}
	return rec, nil
}

func (r *reader) record() Record {
	v, family := r.u8(), r.u8()
	suite := family >> 4
	family &= 15
	if v != layout(suite) {
		r.fail(fmt.Errorf("record layout %d, this site knows %d, and %d over TLS", v, layoutClear, layoutCovered))
	}
	rec := Record{
		Flags: Flags(r.u8()), Template: r.u8(), Service: r.u32(), Status: r.u16(), Media: r.u16(),
		Key: r.key(family), Epoch: r.u64(), Generation: r.u32(), Base: r.u32(), RcvNxt: r.u32(),
		MSS: r.u16(), Scales: r.u8(), Options: r.u8(), TSVal: r.u32(), Wall: int64(r.u64()),
	}
	copy(rec.Object[:], r.bytes(len(rec.Object)))
	for _, into := range [...]*uint64{&rec.Size, &rec.Start, &rec.Length, &rec.Offset} {
		if suite == suiteNone {
			*into = r.u64()
		} else {
			*into = uint64(r.u16())<<32 | uint64(r.u32())
		}
	}
	rec.Date = r.u32()
	rec.Cover = r.cover(suite)
	switch {
	case family == familyNone:
		r.fail(fmt.Errorf("record without a key"))
	case rec.Flags&^knownFlags != 0:
		r.fail(fmt.Errorf("record flags %#x unknown", rec.Flags))
	case rec.Start > rec.Size || rec.Length > rec.Size-rec.Start:
		r.fail(fmt.Errorf("record range %d+%d of %d", rec.Start, rec.Length, rec.Size))
	}
	return rec
}
