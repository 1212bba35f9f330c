package tcprepair

import (
	"errors"
	"net/netip"
	"time"
)

// MaxInput bounds the unread bytes that travel in a State. A peer that has
// sent more than this without being read is not moved.
const MaxInput = 64 << 10

// Errors a caller branches on: the connection is healthy and stays where it
// is, it merely cannot be moved in the state it is in.
var (
	// ErrNotEstablished: a handshake or a close is under way.
	ErrNotEstablished = errors.New("connection is not in ESTABLISHED")
	// ErrInput: more than MaxInput bytes wait to be read.
	ErrInput = errors.New("too much unread input")
	// ErrClock: the connection's timestamps count microseconds, which a
	// restore in milliseconds would turn back (RFC 7323 section 5, PAWS).
	ErrClock = errors.New("connection uses microsecond timestamps")
)

// Window is the kernel's view of both windows, in the order and width of its
// struct tcp_repair_window.
type Window struct {
	SndWl1, SndWnd, MaxWindow, RcvWnd, RcvWup uint32
}

// Options are what both sides agreed upon in the handshake.
type Options struct {
	MSS        uint16 // the peer's limit, not the current path's
	SndScale   uint8
	RcvScale   uint8
	Scaling    bool
	SACK       bool
	Timestamps bool
}

// State is one connection as it was at the moment of the dump.
type State struct {
	Local, Peer netip.AddrPort
	SndUna      uint32 // oldest byte the peer has not acknowledged
	SndNxt      uint32 // next byte to go on the wire
	WriteSeq    uint32 // next byte the application would write
	RcvNxt      uint32 // next byte expected of the peer, behind Input
	TSVal       uint32 // last timestamp clock, milliseconds, bit 0 clear
	Options     Options
	Window      Window
	RTT         time.Duration // smoothed; the kernel takes one back by Learn alone
	Input       []byte        // received and acknowledged, not yet read
}

// InFlight is the count of bytes which were sent and not acknowledged; the
// restoring side must supply exactly these.
func (s State) InFlight() int { return int(s.SndNxt - s.SndUna) }

// Unsent is the count of bytes the application had written which never left;
// the restoring side's application writes them again.
func (s State) Unsent() int { return int(s.WriteSeq - s.SndNxt) }

// Of the kernel's sizes of segments.
const (
	halfFrom   = 536 // the largest window that is no more than one segment (RFC 9293 section 3.7.1)
	leastMSS   = 88  // that a socket can be set to
	clockBytes = 12  // of a segment, for its timestamps
)

// segment is the MSS to begin with: that of Options, or one of which the peer's largest window
// holds two. A kernel finds that out when a window is larger than any before; a restored
// connection is told the largest at once, and so it never would. Its segments would then be larger than
// what a peer with little room offers while it reads, and leave one by one when
// the probe timer runs out. Where the window turns out larger, so do the segments.
func (s State) segment() uint32 {
	mss, room := uint32(s.Options.MSS), s.Window.MaxWindow
	if room == 0 {
		return mss
	}
	if room > halfFrom {
		room /= 2
	}
	if s.Options.Timestamps {
		room += clockBytes
	}
	return min(mss, max(room, leastMSS))
}
