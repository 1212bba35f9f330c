package geo

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// The types and subtypes of MRT which hold a routing table (RFC 6396, 4.3; RFC
// 8050, 4). All others are passed over.
const (
	mrtTableDumpV2 = 13

	ribPeers          = 1
	ribIPv4           = 2
	ribIPv6           = 4
	ribIPv4AddPath    = 8
	ribIPv6AddPath    = 10
	mrtHeader         = 12      // octets: time, type, subtype, length
	mrtLongest        = 1 << 24 // octets of a record; the largest seen have some 100,000
	attrASPath        = 2       // RFC 4271, 4.3
	attrExtended      = 0x10    // flag: two octets of length
	segmentSequence   = 2
	segmentConfedMost = 4 // types 1 to 4 are known (RFC 5065, 3)
)

// MRTError says where in a file a routing table could not be read.
type MRTError struct {
	File   string
	Record int   // the first is 1
	Offset int64 // of the record's first octet, in the unpacked stream
	Err    error
}

func (e *MRTError) Error() string {
	return fmt.Sprintf("geo: mrt %s: record %d at byte %d: %v", e.File, e.Record, e.Offset, e.Err)
}

func (e *MRTError) Unwrap() error { return e.Err }

// OpenRoutes reads the routing tables at paths, as collectors and routers write
// them (MRT TABLE_DUMP_V2, plain, gzip or bzip2), into one. Of a prefix that stands
// in several records the last one counts. A file with a damaged record is refused
// as a whole: half a table would group clients by the wrong prefixes.
func OpenRoutes(paths []string) (*Routes, error) {
	if len(paths) == 0 {
		return nil, errors.New("geo: routes: no files named")
	}
	b := newRoutesBuilder()
	for _, path := range paths {
		if err := b.open(path); err != nil {
			return nil, err
		}
	}
	return b.build(), nil
}

// open adds the routes of one file.
func (b *routesBuilder) open(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("geo: routes: %w", err)
	}
	defer f.Close()
	return b.read(path, f)
}

// read adds the routes of one stream; name is for errors.
func (b *routesBuilder) read(name string, in io.Reader) error {
	before := b.len()
	r := &mrtReader{into: b, peers: -1}
	err := r.all(in)
	switch {
	case err == nil && b.len() == before:
		err = fmt.Errorf("no route of IPv4 or IPv6 unicast in %d records; want TABLE_DUMP_V2", r.record)
		return fmt.Errorf("geo: mrt %s: %w", name, err)
	case err != nil:
		return &MRTError{File: name, Record: r.record, Offset: r.offset, Err: err}
	}
	return nil
}

// unpack recognises compression by the first octets, never by the file's name.
func unpack(in io.Reader) (io.Reader, error) {
	br := bufio.NewReaderSize(in, 1<<16)
	head, err := br.Peek(3)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case string(head) == "BZh":
		return bzip2.NewReader(br), nil
	case err != nil && err != io.EOF:
		return nil, err
	}
	return br, nil
}

// mrtReader walks over the records of one stream. It keeps one record in memory.
type mrtReader struct {
	into   *routesBuilder
	record int
	offset int64
	peers  int // in the PEER_INDEX_TABLE read last; -1 before the first
	body   []byte
	seen   []uint64 // what the entries of one record say of origin and neighbour
}

// all reads to the end of the stream. record and offset then tell where an error
// was met.
func (r *mrtReader) all(in io.Reader) error {
	r.record = 1
	in, err := unpack(in)
	if err != nil {
		return err
	}
	in = bufio.NewReaderSize(in, 1<<16)
	var head [mrtHeader]byte
	for ; ; r.record++ {
		if _, err := io.ReadFull(in, head[:]); err == io.EOF {
			r.record--
			return nil
		} else if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		n := binary.BigEndian.Uint32(head[8:])
		if n > mrtLongest {
			return fmt.Errorf("length %d: more than %d", n, mrtLongest)
		}
		if err := r.fill(in, int(n)); err != nil {
			return fmt.Errorf("body of %d octets: %w", n, err)
		}
		if binary.BigEndian.Uint16(head[4:]) == mrtTableDumpV2 {
			r.into.seen(time.Unix(int64(binary.BigEndian.Uint32(head[:])), 0).UTC())
			if err := r.table(binary.BigEndian.Uint16(head[6:])); err != nil {
				return err
			}
		}
		r.offset += mrtHeader + int64(n)
	}
}

// fill reads a body of n octets, in steps: a damaged length costs no more memory
// than the stream has octets.
func (r *mrtReader) fill(in io.Reader, n int) error {
	r.body = r.body[:0]
	for len(r.body) < n {
		step := min(n-len(r.body), 1<<16)
		r.body = slices.Grow(r.body, step)[:len(r.body)+step]
		if _, err := io.ReadFull(in, r.body[len(r.body)-step:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// table takes one record of a routing table. Multicast and generic tables say
// nothing of where clients are.
func (r *mrtReader) table(subtype uint16) error {
	switch subtype {
	case ribPeers:
		return r.peerIndex()
	case ribIPv4, ribIPv4AddPath:
		return r.rib(32, subtype == ribIPv4AddPath)
	case ribIPv6, ribIPv6AddPath:
		return r.rib(128, subtype == ribIPv6AddPath)
	}
	return nil
}

// peerIndex counts the peers (RFC 6396, 4.3.1), whom the entries name by number.
func (r *mrtReader) peerIndex() error {
	f := fields{rest: r.body}
	f.take(4) // collector
	f.take(int(f.u16()))
	r.peers = int(f.u16())
	for i := range r.peers {
		kind, size := f.u8(), 4+4+2
		if kind&1 != 0 {
			size += 12 // an IPv6 address
		}
		if kind&2 != 0 {
			size += 2 // an AS number of four octets
		}
		if f.take(size); f.short {
			return fmt.Errorf("peer index: peer %d of %d: record too short", i+1, r.peers)
		}
	}
	return f.end("peer index")
}

// rib takes one prefix with all its entries (RFC 6396, 4.3.2 and 4.3.4); with
// Add-Path each entry has a path identifier (RFC 8050, 4.1).
func (r *mrtReader) rib(width int, addPath bool) error {
	if r.peers < 0 {
		return errors.New("a route before the peer index (RFC 6396, 4.3.1)")
	}
	f := fields{rest: r.body}
	f.take(4) // sequence number
	bits := int(f.u8())
	if bits > width {
		return fmt.Errorf("prefix length %d of at most %d", bits, width)
	}
	var addr [16]byte
	copy(addr[:], f.take((bits+7)/8))
	n := int(f.u16())
	r.seen = r.seen[:0]
	for i := range n {
		peer := int(f.u16())
		f.take(4) // originated
		if addPath {
			f.take(4)
		}
		attrs := f.take(int(f.u16()))
		switch {
		case f.short:
			return fmt.Errorf("entry %d of %d: record too short", i+1, n)
		case peer >= r.peers:
			return fmt.Errorf("entry %d of %d: peer %d of %d", i+1, n, peer, r.peers)
		}
		c, err := pathEnd(attrs)
		if err != nil {
			return fmt.Errorf("entry %d of %d: %w", i+1, n, err)
		}
		if c.Origin != 0 {
			r.seen = append(r.seen, uint64(c.Origin)<<32|uint64(c.Via))
		}
	}
	if err := f.end("route"); err != nil || n == 0 {
		return err
	}
	return r.into.add(addr, bits, width == 32, mostSeen(r.seen))
}

// mostSeen is the origin which most entries name, and among those entries the
// neighbour which most name; of equally many the lower number. It sorts seen.
func mostSeen(seen []uint64) Cluster {
	slices.Sort(seen)
	var best Cluster
	most := 0
	for i := 0; i < len(seen); {
		end, via, viaMost := i, uint32(0), 0
		for end < len(seen) && seen[end]>>32 == seen[i]>>32 {
			run := end
			for run < len(seen) && seen[run] == seen[end] {
				run++
			}
			if run-end > viaMost {
				via, viaMost = uint32(seen[end]), run-end
			}
			end = run
		}
		if end-i > most {
			best, most = Cluster{Origin: uint32(seen[i] >> 32), Via: via}, end-i
		}
		i = end
	}
	return best
}

// pathEnd finds the AS path among attributes and reads where it ends.
func pathEnd(attrs []byte) (Cluster, error) {
	f := fields{rest: attrs}
	for len(f.rest) > 0 {
		flags, kind := f.u8(), f.u8()
		size := 0
		if flags&attrExtended != 0 {
			size = int(f.u16())
		} else {
			size = int(f.u8())
		}
		value := f.take(size)
		if f.short {
			return Cluster{}, fmt.Errorf("attribute %d: longer than the entry", kind)
		}
		if kind == attrASPath {
			return lastHops(value)
		}
	}
	return Cluster{}, nil
}

// lastHops reads the last two different ASes of a path; AS numbers have four
// octets here, whatever the peer spoke (RFC 6396, 4.3.4). A set at the end is left
// out, so that an aggregate belongs to the AS which made it; members of a
// confederation are no hops (RFC 5065, 5.3).
func lastHops(path []byte) (c Cluster, err error) {
	f := fields{rest: path}
	for len(f.rest) > 0 {
		kind := f.u8()
		list := f.take(4 * int(f.u8()))
		if f.short || kind == 0 || kind > segmentConfedMost {
			return Cluster{}, fmt.Errorf("AS path: segment of type %d, or longer than the path", kind)
		}
		for ; kind == segmentSequence && len(list) > 0; list = list[4:] {
			if as := binary.BigEndian.Uint32(list); as != c.Origin {
				c.Origin, c.Via = as, c.Origin
			}
		}
	}
	return c, nil
}

// fields reads big-endian fields one after another. After the first that is not
// there it gives zeros, and short is set.
type fields struct {
	rest  []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.rest, f.short = nil, true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) u8() uint8 {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// end says whether the fields filled the record.
func (f *fields) end(what string) error {
	switch {
	case f.short:
		return fmt.Errorf("%s: record too short", what)
	case len(f.rest) > 0:
		return fmt.Errorf("%s: %d octets behind the last field", what, len(f.rest))
	}
	return nil
}
