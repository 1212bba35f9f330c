package recording

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// Packet is one DNS message over UDP.
type Packet struct {
	From, To netip.AddrPort
	Data     []byte
}

// Reader yields the packets of a file.
type Reader struct {
	in   *bufio.Reader
	next func() (Packet, bool, error)
	// Port is that of the servers; packets between other ports are skipped. It does
	// not matter for dnstap, which says who was asked.
	Port uint16
	// Skipped counts what was no whole DNS message.
	Skipped int
}

// ErrFormat says that a file is none of those that are known.
var ErrFormat = errors.New("is neither pcap nor pcapng nor dnstap")

// maxRecord is longer than any record that holds a DNS message.
const maxRecord = 1 << 20

// Open finds out what a file is by its first octets.
func Open(file io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(file, 64<<10), Port: 53}
	head, err := r.in.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", ErrFormat)
	}
	switch binary.LittleEndian.Uint32(head) {
	case magicMicro, magicNano, swap(magicMicro), swap(magicNano):
		err = r.openPcap()
	case blockSection:
		r.next = (&ngFile{r: r}).next
	case 0: // the escape before a control frame
		err = r.openDnstap()
	default:
		err = ErrFormat
	}
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	return r, nil
}

func swap(v uint32) uint32 {
	return v>>24 | v>>8&0xff00 | v<<8&0xff0000 | v<<24
}

// Next returns one packet after another, and io.EOF behind the last.
func (r *Reader) Next() (Packet, error) {
	for {
		p, ok, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return Packet{}, io.EOF
		case err != nil:
			return Packet{}, fmt.Errorf("recording: %w", err)
		case ok:
			return p, nil
		}
		r.Skipped++
	}
}

// take reads n octets; a file that ends within them is damaged.
func (r *Reader) take(n int) ([]byte, error) {
	if n < 0 || n > maxRecord {
		return nil, fmt.Errorf("a record of %d octets", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.in, b); err != nil {
		if n > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

// begins tells whether another record begins here; io.EOF where the file ends.
func (r *Reader) begins() error {
	_, err := r.in.Peek(1)
	return err
}
