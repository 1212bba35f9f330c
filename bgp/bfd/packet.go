package bfd

import "encoding/binary"

// State is a session's state, with the numbers of RFC 5880 section 4.1.
type State uint8

// The states. AdminDown is an operator's will and no failure (RFC 5882 section 3.2).
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// String returns the name used in logs and labels.
func (s State) String() string {
	return [...]string{"admin-down", "down", "init", "up"}[s&3]
}

// Diag says why a session last left Up (RFC 5880 section 4.1).
type Diag uint8

// The diagnostics which we give; others are only heard.
const (
	NoDiag          Diag = 0
	Expired         Diag = 1 // the detection time passed without a packet
	NeighborDown    Diag = 3 // the neighbour signalled it
	AdminDownByUser Diag = 7
)

// diags are the registered diagnostics by number.
func (d Diag) name() string {
	switch d {
	case NoDiag:
		return "none"
	case Expired:
		return "expired"
	case 2:
		return "echo"
	case NeighborDown:
		return "neighbor"
	case 4:
		return "forwarding-reset"
	case 5:
		return "path"
	case 6:
		return "concatenated"
	case AdminDownByUser:
		return "admin"
	case 8:
		return "reverse-concatenated"
	}
	return "other"
}

// String returns the name used in logs and labels.
func (d Diag) String() string { return d.name() }

// packetLen is the length of a control packet without authentication.
const packetLen = 24

// version is the protocol's, in the first three bits.
const version = 1

// The flags of the second octet (RFC 5880 section 4.1).
const (
	flagPoll       = 1 << 5
	flagFinal      = 1 << 4
	flagAuth       = 1 << 2
	flagDemand     = 1 << 1
	flagMultipoint = 1 << 0
)

// Packet is a control packet. Intervals are in microseconds, as on the wire.
type Packet struct {
	Diag               Diag
	State              State
	Poll, Final        bool
	Demand             bool
	Multiplier         uint8
	Mine, Yours        uint32 // discriminators, as the sender sees it
	MinTx, MinRx, Echo uint32
}

// Drop is why a packet was thrown away; Accepted is none.
type Drop uint8

// The reasons, in the order in which they are looked for.
const (
	Accepted          Drop = iota
	DropTTL                // not 255, so not from this link (RFC 5881 section 5)
	DropLength             // too short, or shorter than it says
	DropVersion            // not 1
	DropMultiplier         // zero
	DropMultipoint         // RFC 8562's bit, reserved here
	DropDiscriminator      // My Discriminator zero, or Your Discriminator zero in a state which knows it
	DropAuth               // authentication where none was agreed
	DropUnknown            // no session of ours on that interface
	drops                  // how many there are
)

// String returns the name used in labels.
func (d Drop) String() string {
	return [...]string{"accepted", "ttl", "length", "version", "multiplier", "multipoint", "discriminator", "auth", "unknown", "?"}[min(d, drops)]
}

// Drops returns every reason for which packets are dropped.
func Drops() []Drop {
	out := make([]Drop, 0, drops-1)
	for d := Accepted + 1; d < drops; d++ {
		out = append(out, d)
	}
	return out
}

// Decode reads a packet by the rules of RFC 5880 section 6.8.6 which need no
// session. What stands behind the packet's own length is not looked at.
func Decode(b []byte) (Packet, Drop) {
	if len(b) < packetLen {
		return Packet{}, DropLength
	}
	if b[0]>>5 != version {
		return Packet{}, DropVersion
	}
	if n := int(b[3]); n < packetLen || n > len(b) {
		return Packet{}, DropLength
	}
	p := Packet{Diag: Diag(b[0] & 0x1f), State: State(b[1] >> 6),
		Poll: b[1]&flagPoll != 0, Final: b[1]&flagFinal != 0, Demand: b[1]&flagDemand != 0, Multiplier: b[2],
		Mine: binary.BigEndian.Uint32(b[4:]), Yours: binary.BigEndian.Uint32(b[8:]),
		MinTx: binary.BigEndian.Uint32(b[12:]), MinRx: binary.BigEndian.Uint32(b[16:]), Echo: binary.BigEndian.Uint32(b[20:])}
	return p, p.judge(b[1])
}

// judge holds a packet's fields to the rest of those rules.
func (p *Packet) judge(flags byte) Drop {
	switch {
	case p.Multiplier == 0:
		return DropMultiplier
	case flags&flagMultipoint != 0:
		return DropMultipoint
	case p.Mine == 0, p.Yours == 0 && p.State > Down:
		return DropDiscriminator
	case flags&flagAuth != 0:
		return DropAuth
	}
	return Accepted
}

// Put writes the packet into the first 24 octets of b.
func (p *Packet) Put(b []byte) {
	_ = b[packetLen-1]
	b[0] = version<<5 | byte(p.Diag)&0x1f
	b[1] = byte(p.State)<<6 | bit(p.Poll, flagPoll) | bit(p.Final, flagFinal) | bit(p.Demand, flagDemand)
	b[2], b[3] = p.Multiplier, packetLen
	binary.BigEndian.PutUint32(b[4:], p.Mine)
	binary.BigEndian.PutUint32(b[8:], p.Yours)
	binary.BigEndian.PutUint32(b[12:], p.MinTx)
	binary.BigEndian.PutUint32(b[16:], p.MinRx)
	binary.BigEndian.PutUint32(b[20:], p.Echo)
}

func bit(set bool, flag byte) byte {
	if set {
		return flag
	}
	return 0
}
