package recording

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The classic format (draft-ietf-opsawg-pcap): the magic tells the order of octets
// and the unit of time, which does not matter here.
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
	pcapHeader = 24
	pcapRecord = 16
)

// openPcap reads the header of a classic file.
func (r *Reader) openPcap() error {
	head, err := r.take(pcapHeader)
	if err != nil {
		return err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if m := binary.LittleEndian.Uint32(head); m != magicMicro && m != magicNano {
		order = binary.BigEndian
	}
	link := order.Uint32(head[20:]) & 0xffff // the upper half is about the frames' checksums
	r.next = func() (Packet, bool, error) {
		if err := r.begins(); err != nil {
			return Packet{}, false, err
		}
		h, err := r.take(pcapRecord)
		if err != nil {
			return Packet{}, false, err
		}
		kept, whole := order.Uint32(h[8:]), order.Uint32(h[12:])
		frame, err := r.take(int(min(kept, maxRecord+1)))
		if err != nil || kept < whole {
			return Packet{}, false, err
		}
		p, ok := r.frame(link, frame)
		return p, ok, nil
	}
	return nil
}

// Blocks of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a // the same in both orders
	blockInterface = 1
	blockSimple    = 3
	blockPacket    = 6
	magicSection   = 0x1a2b3c4d
)

// ngFile is a pcapng file: sections, each with its own order of octets and interfaces.
type ngFile struct {
	r     *Reader
	order binary.ByteOrder
	links []uint32
}

// next reads one block. What is no packet is no loss, and not counted either.
func (f *ngFile) next() (Packet, bool, error) {
	for {
		if err := f.r.begins(); err != nil {
			return Packet{}, false, err
		}
		kind, body, err := f.block()
		if err != nil {
			return Packet{}, false, err
		}
		switch {
		case kind == blockInterface && len(body) >= 8:
			f.links = append(f.links, uint32(f.order.Uint16(body)))
		case kind == blockPacket && len(body) >= 20:
			kept, whole := f.order.Uint32(body[12:]), f.order.Uint32(body[16:])
			return f.packet(f.order.Uint32(body), body[20:], kept, whole)
		case kind == blockSimple && len(body) >= 4:
			whole := f.order.Uint32(body)
			return f.packet(0, body[4:], whole, whole)
		}
	}
}

// packet reads the frame of a block.
func (f *ngFile) packet(link uint32, data []byte, kept, whole uint32) (p Packet, ok bool, err error) {
	if int64(link) >= int64(len(f.links)) {
		return p, false, fmt.Errorf("a packet of interface %d of %d", link, len(f.links))
	}
	if kept < whole || int64(kept) > int64(len(data)) {
		return p, false, nil
	}
	p, ok = f.r.frame(f.links[link], data[:kept])
	return p, ok, nil
}

// block reads one block; a section begins anew.
func (f *ngFile) block() (kind uint32, body []byte, err error) {
	head, err := f.r.take(8)
	if err != nil {
		return 0, nil, err
	}
	if binary.LittleEndian.Uint32(head) == blockSection {
		magic, err := f.r.in.Peek(4)
		if err != nil {
			return 0, nil, err
		}
		switch uint32(magicSection) {
		case binary.LittleEndian.Uint32(magic):
			f.order = binary.LittleEndian
		case binary.BigEndian.Uint32(magic):
			f.order = binary.BigEndian
		default:
			return 0, nil, errors.New("a section of neither order of octets")
		}
		f.links = nil
	}
	if f.order == nil {
		return 0, nil, errors.New("a block before the first section")
	}
	size := f.order.Uint32(head[4:])
	if size < 12 || size%4 != 0 || size > maxRecord {
		return 0, nil, fmt.Errorf("a block of %d octets", size)
	}
	body, err = f.r.take(int(size) - 8)
	if err != nil {
		return 0, nil, err
	}
	return f.order.Uint32(head), body[:len(body)-4], nil // without the length behind it
}
