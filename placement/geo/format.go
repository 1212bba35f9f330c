package geo

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"rhumb/placement/lpm"
)

// The stored form of a table is a gzip stream: magic; name, licence and
// attribution; build time; the classes; then for IPv4 and for IPv6 three columns,
// each as long as the family has prefixes: gap to the end of the prefix before
// (mostly 0, negative when nested), length, class id. IPv6 counts in the upper
// halves of addresses, and a fourth column holds the lower ones, nearly all 0.
// Numbers are varints, texts have their length before them. The SHA-256 digest of the table ends it. Columns
// beside each other compress to two thirds of what records would.
const magic = "rhumb class table 1\n"

const (
	maxText   = 4096
	maxStored = 1 << 28 // bytes before compression, twice a large city table's
)

// Encode writes the stored form.
func (t *Table) Encode(w io.Writer) error {
	zw, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	e := encoder{Writer: bufio.NewWriter(zw)}
	e.header(t)
	var v4, v6 []lpm.Entry
	for p, id := range t.Entries() {
		if p.Addr().Is4() {
			v4 = append(v4, lpm.Entry{Prefix: p, Value: id})
			continue
		}
		v6 = append(v6, lpm.Entry{Prefix: p, Value: id})
	}
	e.columns(v4, 32)
	e.columns(v6, 64)
	sum, err := hex.DecodeString(t.digest)
	if err != nil {
		return err
	}
	_, _ = e.Write(sum)
	return errors.Join(e.Flush(), zw.Close())
}

// encoder writes numbers and texts; bufio keeps the first error until Flush.
type encoder struct{ *bufio.Writer }

// header writes all that is not a column. Cells are numbers of half degrees, so
// that no float is ever stored.
func (e encoder) header(t *Table) {
	_, _ = e.WriteString(magic)
	for _, s := range []string{t.info.Name, t.info.Licence, t.info.Attribution} {
		e.text(s)
	}
	e.number(t.info.BuildTime.Unix())
	e.number(int64(len(t.classes)))
	for _, c := range t.classes {
		e.number(int64(c.lat))
		e.number(int64(c.lon))
		e.text(c.country)
		e.text(c.continent)
	}
}

// columns writes one family, whose prefixes must be in address order. Gaps wrap
// around where prefixes nest, and the varint of a small negative number is short.
func (e encoder) columns(list []lpm.Entry, width int) {
	e.number(int64(len(list)))
	end := uint64(0)
	for _, x := range list {
		first, _ := numbers(x.Prefix.Addr())
		e.number(int64(first - end))
		end = first + size(x.Prefix.Bits(), width)
	}
	for _, x := range list {
		_ = e.WriteByte(byte(x.Prefix.Bits()))
	}
	for _, x := range list {
		e.number(int64(x.Value))
	}
	for i := 0; i < len(list) && width == 64; i++ {
		_, low := numbers(list[i].Prefix.Addr())
		e.number(int64(low))
	}
}

func (e encoder) number(n int64) { _, _ = e.Write(binary.AppendVarint(nil, n)) }

func (e encoder) text(s string) {
	e.number(int64(len(s)))
	_, _ = e.WriteString(s)
}

// numbers are the two halves of an IPv6 address, or an IPv4 address and 0.
func numbers(a netip.Addr) (high, low uint64) {
	b := a.AsSlice()
	if len(b) == 4 {
		return uint64(binary.BigEndian.Uint32(b)), 0
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
}

// size is how many numbers of that width a prefix covers: 0 if less than one, or
// if all 64-bit ones, which wrap around like sums and differences do.
func size(bits, width int) uint64 {
	if bits > width {
		return 0
	}
	return 1 << (width - bits)
}

// Decode reads the stored form. Data of any other shape, cut short or altered,
// gives an error; memory stays in proportion to what was read.
func Decode(r io.Reader) (*Table, error) {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("geo: decode: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(zr, maxStored))
	if err != nil {
		return nil, fmt.Errorf("geo: decode: %w", err)
	}
	d := decoder{rest: raw}
	info, classes := d.header()
	entries := d.columns(nil, 32, len(classes))
	entries = d.columns(entries, 64, len(classes))
	sum := d.take(32)
	if d.err != nil {
		return nil, fmt.Errorf("geo: decode: %w", d.err)
	}
	prefixes, err := lpm.Build(entries)
	if err != nil {
		return nil, fmt.Errorf("geo: decode: %w", err)
	}
	t := newTable(info, prefixes, classes)
	if t.digest != hex.EncodeToString(sum) {
		return nil, errors.New("geo: decode: content and digest differ")
	}
	return t, nil
}

// decoder reads what encoder wrote. After the first error it yields zeros.
type decoder struct {
	rest []byte
	err  error
}

// header checks every number against what a table can hold; the arithmetic of
// cells and class ids relies on it.
func (d *decoder) header() (Info, []class) {
	if head := d.take(len(magic)); d.err == nil && string(head) != magic {
		d.err = errors.New("not a class table of this version")
	}
	info := Info{Name: d.text(), Licence: d.text(), Attribution: d.text()}
	info.BuildTime = time.Unix(d.number(-1<<40, 1<<40), 0).UTC()
	n := int(d.number(0, maxClasses))
	var classes []class
	for i := 0; i < n && d.err == nil; i++ {
		c := class{cell: cell{int16(d.number(-180, 179)), int16(d.number(-360, 359))}}
		c.country, c.continent = d.text(), d.text()
		classes = append(classes, c)
	}
	return info, classes
}

// columns appends one family.
func (d *decoder) columns(list []lpm.Entry, width, classes int) []lpm.Entry {
	n := int(d.number(0, int64(len(d.rest)))) // each takes a byte at least
	from := len(list)
	list = append(list, make([]lpm.Entry, n)...)
	mine := list[from:]
	gaps := make([]uint64, n)
	for i := range gaps {
		gaps[i] = uint64(d.number(-1<<63, 1<<63-1))
	}
	lengths, end := d.take(n), uint64(0)
	for i, b := range lengths {
		bits := d.length(b, width)
		first := end + gaps[i]
		end = first + size(bits, width)
		mine[i].Prefix = prefix(first, bits, width)
	}
	for i := range mine {
		mine[i].Value = uint16(d.number(0, int64(classes)-1))
	}
	for i := 0; i < n && width == 64; i++ {
		if low := d.number(-1<<63, 1<<63-1); low != 0 {
			mine[i].Prefix = withLow(mine[i].Prefix, uint64(low))
		}
	}
	return list
}

// prefix is the inverse of numbers. Host bits, which Encode never writes, are left
// for Build to clear.
func prefix(first uint64, bits, width int) netip.Prefix {
	var b [16]byte
	if width == 32 {
		binary.BigEndian.PutUint32(b[:], uint32(first))
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), bits)
	}
	binary.BigEndian.PutUint64(b[:], first)
	return netip.PrefixFrom(netip.AddrFrom16(b), bits)
}

func withLow(p netip.Prefix, low uint64) netip.Prefix {
	b := p.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], low)
	return netip.PrefixFrom(netip.AddrFrom16(b), p.Bits())
}

// length checks a prefix length of IPv4 (width 32) or IPv6 (width 64).
func (d *decoder) length(b byte, width int) int {
	most := 32
	if width == 64 {
		most = 128
	}
	if int(b) > most {
		d.fail(fmt.Errorf("prefix length %d of at most %d", b, most))
		return 0
	}
	return int(b)
}

// number reads a varint and refuses one outside [low, high].
func (d *decoder) number(low, high int64) int64 {
	n, size := binary.Varint(d.rest)
	switch {
	case size <= 0:
		d.fail(io.ErrUnexpectedEOF)
		return 0
	case n < low || n > high:
		d.fail(fmt.Errorf("number %d outside %d to %d", n, low, high))
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) text() string { return string(d.take(int(d.number(0, maxText)))) }

// take returns the next n bytes, or nil if there are fewer.
func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.fail(io.ErrUnexpectedEOF)
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// fail keeps the first error, and ends reading.
func (d *decoder) fail(err error) {
	d.rest = nil
	if d.err == nil {
		d.err = err
	}
}
