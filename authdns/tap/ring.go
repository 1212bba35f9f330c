package tap

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Protocol is dnstap's number of a transport (SocketProtocol of dnstap.proto).
type Protocol uint8

// The transports spoken here.
const (
	UDP Protocol = 1
	TCP Protocol = 2
	DoT Protocol = 3
	DoH Protocol = 4
	DoQ Protocol = 7
)

// Exchange is a query, and its reply where it got one. What it points to is the
// caller's again once it was put.
type Exchange struct {
	Protocol Protocol
	// Client asked; Server is the address asked, the zero value where it is not known.
	Client, Server netip.AddrPort
	Asked, Told    time.Time
	Query, Reply   []byte
}

// ringSize holds some thousand exchanges, a tenth of a second of a busy worker.
const ringSize = 1 << 20

// A record begins with a header: its length (0: the rest of the ring is skipped), the
// lengths of both messages, the transport, both ports and addresses, both times.
const recordHeader = 4 + 2 + 2 + 1 + 1 + 2 + 2 + 16 + 16 + 8 + 8 + 2

// Ring is written by one worker, or by several who hold its lock, and read by the Tap.
type Ring struct {
	// every is of how many exchanges one is told, seen counts those of the writer.
	every, seen uint64
	mu          sync.Mutex // of writers that share it; a worker's own needs none
	buf         []byte
	// head is how much was ever written, tail how much was read; on cache lines of
	// their own, so that the writer does not wait for the reader's.
	_       [64]byte
	head    atomic.Uint64
	dropped atomic.Uint64
	_       [64]byte
	tail    atomic.Uint64
}

// Wanted tells whether the exchange at hand is one of the sample. Only the writer calls it.
func (r *Ring) Wanted() bool {
	r.seen++
	if r.seen < r.every {
		return false
	}
	r.seen = 0
	return true
}

// PutShared is Put for writers who share a Ring; the sample is taken among all of them.
func (r *Ring) PutShared(e *Exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Wanted() {
		r.Put(e)
	}
}

// Put copies an exchange, or counts it as dropped where there is no room. It neither
// waits nor allocates.
func (r *Ring) Put(e *Exchange) {
	need := uint64(recordHeader+len(e.Query)+len(e.Reply)+7) &^ 7
	head, size := r.head.Load(), uint64(len(r.buf))
	at := head % size
	skip := uint64(0)
	if at+need > size { // a record is in one piece
		skip = size - at
	}
	if head+skip+need-r.tail.Load() > size {
		r.dropped.Add(1)
		return
	}
	if skip > 0 {
		binary.NativeEndian.PutUint32(r.buf[at:], 0)
		at = 0
	}
	b := r.buf[at : at+need]
	binary.NativeEndian.PutUint32(b, uint32(need))
	binary.NativeEndian.PutUint16(b[4:], uint16(len(e.Query)))
	binary.NativeEndian.PutUint16(b[6:], uint16(len(e.Reply)))
	b[8], b[9] = byte(e.Protocol), families(e)
	binary.NativeEndian.PutUint16(b[10:], e.Client.Port())
	binary.NativeEndian.PutUint16(b[12:], e.Server.Port())
	client, server := e.Client.Addr().As16(), [16]byte{}
	if e.Server.IsValid() {
		server = e.Server.Addr().As16()
	}
	copy(b[14:], client[:])
	copy(b[30:], server[:])
	binary.NativeEndian.PutUint64(b[46:], uint64(e.Asked.UnixNano()))
	binary.NativeEndian.PutUint64(b[54:], uint64(e.Told.UnixNano()))
	n := copy(b[recordHeader:], e.Query)
	copy(b[recordHeader+n:], e.Reply)
	r.head.Store(head + skip + need)
}

// The families of a record's addresses.
const (
	clientIs4 = 1 << iota
	serverIs4
	serverKnown
)

func families(e *Exchange) (f byte) {
	if e.Client.Addr().Is4() {
		f |= clientIs4
	}
	if e.Server.IsValid() {
		f |= serverKnown
		if e.Server.Addr().Is4() {
			f |= serverIs4
		}
	}
	return f
}

// take calls f with each exchange that lies there, whose octets are f's until it
// returns, and frees its room; false from f ends it. What comes meanwhile is left for the
// next time: a writer that is faster keeps no other ring waiting. Only the Tap calls it.
func (r *Ring) take(f func(*Exchange) bool) {
	size, head := uint64(len(r.buf)), r.head.Load()
	e := new(Exchange) // one for all: f may keep it no longer than its octets
	for tail := r.tail.Load(); tail != head; {
		at := tail % size
		need := uint64(0)
		if size-at >= 4 {
			need = uint64(binary.NativeEndian.Uint32(r.buf[at:]))
		}
		if need == 0 {
			tail += size - at
			r.tail.Store(tail)
			continue
		}
		*e = read(r.buf[at : at+need])
		more := f(e)
		tail += need
		r.tail.Store(tail)
		if !more {
			return
		}
	}
}

func read(b []byte) Exchange {
	client, server := netip.AddrFrom16([16]byte(b[14:30])), netip.AddrFrom16([16]byte(b[30:46]))
	if b[9]&clientIs4 != 0 {
		client = client.Unmap()
	}
	if b[9]&serverIs4 != 0 {
		server = server.Unmap()
	}
	e := Exchange{Protocol: Protocol(b[8]), Client: netip.AddrPortFrom(client, binary.NativeEndian.Uint16(b[10:])),
		Asked: time.Unix(0, int64(binary.NativeEndian.Uint64(b[46:]))), Told: time.Unix(0, int64(binary.NativeEndian.Uint64(b[54:])))}
	if b[9]&serverKnown != 0 {
		e.Server = netip.AddrPortFrom(server, binary.NativeEndian.Uint16(b[12:]))
	}
	query, reply := int(binary.NativeEndian.Uint16(b[4:])), int(binary.NativeEndian.Uint16(b[6:]))
	e.Query = b[recordHeader : recordHeader+query]
	e.Reply = b[recordHeader+query : recordHeader+query+reply]
	return e
}
