package recording

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
)

// message is a DNS message of a header and nothing else.
func message(id uint16, reply bool) []byte {
	b := make([]byte, headerDNS)
	binary.BigEndian.PutUint16(b, id)
	if reply {
		b[2] = 0x80
	}
	return b
}

func udpOf(from, to uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(headerUDP+len(data)))
	return append(append(b, 0, 0), data...)
}

func ip4Of(from, to string, data []byte) []byte {
	b := make([]byte, headerIPv4)
	b[0], b[9] = 0x45, protoUDP
	binary.BigEndian.PutUint16(b[2:], uint16(headerIPv4+len(data)))
	f, t := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	copy(b[12:], f[:])
	copy(b[16:], t[:])
	return append(b, data...)
}

// ip6Of has an extension header of hop-by-hop options before the datagram.
func ip6Of(from, to string, data []byte) []byte {
	b := make([]byte, headerIPv6)
	b[0] = 0x60
	data = append([]byte{protoUDP, 0, 1, 4, 0, 0, 0, 0}, data...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(data)))
	f, t := netip.MustParseAddr(from).As16(), netip.MustParseAddr(to).As16()
	copy(b[8:], f[:])
	copy(b[24:], t[:])
	return append(b, data...)
}

// framed puts a packet behind the header of a link.
func framed(link uint32, packet []byte) []byte {
	kind := []byte{8, 0}
	if packet[0]>>4 == 6 {
		kind = []byte{0x86, 0xdd}
	}
	switch link {
	case linkEthernet: // with two tags
		return append(append(make([]byte, 12), 0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, kind[0], kind[1]), packet...)
	case linkSLL:
		return append(append(make([]byte, 14), kind...), packet...)
	case linkSLL2:
		return append(append(kind, make([]byte, 18)...), packet...)
	case linkNull:
		return append([]byte{2, 0, 0, 0}, packet...)
	}
	return packet
}

// frames are a query and its reply over either family, one that is no DNS, a fragment,
// and a query without a reply.
func frames(link uint32) (out [][]byte) {
	fragment := ip4Of("198.51.100.5", "192.0.2.53", udpOf(4000, 53, message(9, false)))
	fragment[6] = 0x20
	for _, p := range [][]byte{
		ip4Of("198.51.100.5", "192.0.2.53", udpOf(4000, 53, message(1, false))),
		ip6Of("2001:db8::5", "2001:db8::53", udpOf(4001, 53, message(2, false))),
		ip4Of("192.0.2.53", "198.51.100.5", udpOf(53, 4000, message(1, true))),
		ip4Of("198.51.100.5", "192.0.2.53", udpOf(4000, 5353, message(3, false))),
		fragment,
		ip6Of("2001:db8::53", "2001:db8::5", udpOf(53, 4001, message(2, true))),
		ip4Of("198.51.100.6", "192.0.2.53", udpOf(4002, 53, message(4, false))),
		ip4Of("192.0.2.53", "198.51.100.9", udpOf(53, 4000, message(5, true))),
	} {
		out = append(out, framed(link, p))
	}
	return out
}

func pcapOf(order binary.AppendByteOrder, magic, link uint32, frames [][]byte) []byte {
	b := order.AppendUint32(nil, magic)
	b = append(b, make([]byte, 16)...)
	b = order.AppendUint32(b, link)
	for _, f := range frames {
		b = append(b, make([]byte, 8)...)
		b = order.AppendUint32(b, uint32(len(f)))
		b = append(order.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

func blockOf(order binary.AppendByteOrder, kind uint32, body []byte) []byte {
	body = append(body, make([]byte, -len(body)&3)...)
	size := uint32(12 + len(body))
	b := order.AppendUint32(order.AppendUint32(nil, kind), size)
	return order.AppendUint32(append(b, body...), size)
}

// ngOf is a pcapng file: an interface of another link before that of the frames, a
// block of statistics, and packets of both kinds.
func ngOf(order binary.AppendByteOrder, link uint32, frames [][]byte) []byte {
	b := blockOf(order, blockSection, append(order.AppendUint32(nil, magicSection), make([]byte, 12)...))
	iface := func(link uint32) []byte {
		return blockOf(order, blockInterface, append(order.AppendUint16(nil, uint16(link)), make([]byte, 6)...))
	}
	b = append(append(b, iface(link)...), iface(9999)...)
	b = append(b, blockOf(order, 5, make([]byte, 12))...)
	for i, f := range frames {
		if i%2 == 1 {
			b = append(b, blockOf(order, blockSimple, append(order.AppendUint32(nil, uint32(len(f))), f...))...)
			continue
		}
		body := append(order.AppendUint32(nil, 0), make([]byte, 8)...)
		body = order.AppendUint32(order.AppendUint32(body, uint32(len(f))), uint32(len(f)))
		b = append(b, blockOf(order, blockPacket, append(body, f...))...)
	}
	return b
}

// field is one of a protocol buffer, with octets, or with a number.
func field(number int, data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(number<<3|2))
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

func number(field int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field<<3)), v)
}

func control(kind uint32, rest []byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(4+len(rest)))
	return append(binary.BigEndian.AppendUint32(b, kind), rest...)
}

func contentField(content string) []byte {
	b := binary.BigEndian.AppendUint32(nil, fieldContent)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(content))), content...)
}

// tapOf is a dnstap file of the same messages.
func tapOf() []byte {
	b := control(controlStart, contentField(contentOfDnstap))
	add := func(kind, protocol uint64, client string, port uint64, data []byte) {
		a := netip.MustParseAddr(client)
		server := netip.MustParseAddr("192.0.2.53")
		if a.Is6() {
			server = netip.MustParseAddr("2001:db8::53")
		}
		m := bytes.Join([][]byte{number(tapKind, kind), number(2, 1), number(tapProtocol, protocol), field(tapQueryAddr, a.AsSlice()),
			field(tapReplyAddr, server.AsSlice()), number(tapQueryPort, port), number(tapReplyPort, 53), number(8, 1700000000),
			{9<<3 | 5, 1, 2, 3, 4}, field(map[bool]int{true: tapReply, false: tapQuery}[kind%2 == 0], data)}, nil)
		e := append(field(1, []byte("ns1")), field(tapMessage, m)...)
		e = append(e, number(15, 1)...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	add(kindAuthQuery, 1, "198.51.100.5", 4000, message(1, false))
	add(kindClientQ, 1, "2001:db8::5", 4001, message(2, false))
	add(kindAuthReply, 1, "198.51.100.5", 4000, message(1, true))
	add(kindAuthQuery, 2, "198.51.100.5", 4000, message(3, false)) // over TCP
	add(3, 1, "198.51.100.5", 4000, message(3, false))             // a resolver's
	add(kindClientR, 1, "2001:db8::5", 4001, message(2, true))
	add(kindAuthQuery, 1, "198.51.100.6", 4002, message(4, false))
	add(kindAuthReply, 1, "198.51.100.9", 4000, message(5, true))
	return append(b, control(controlStop, nil)...)
}

// read pairs a file and shows the exchanges.
func read(file []byte) (out []string, skipped int, err error) {
	r, err := Open(bytes.NewReader(file))
	if err != nil {
		return nil, 0, err
	}
	err = Pair(r, func(e Exchange) {
		out = append(out, fmt.Sprintf("%s>%s %d %v", e.Client, e.Server, binary.BigEndian.Uint16(e.Query), e.Reply != nil))
	})
	return out, r.Skipped, err
}

const wantExchanges = "198.51.100.5:4000>192.0.2.53:53 1 true, [2001:db8::5]:4001>[2001:db8::53]:53 2 true, 198.51.100.6:4002>192.0.2.53:53 4 false"

// files are the same traffic in every format, link and order of octets.
func files() map[string][]byte {
	out := map[string][]byte{"dnstap": tapOf()}
	for name, link := range map[string]uint32{"null": linkNull, "ethernet": linkEthernet, "raw": linkRaw, "sll": linkSLL, "sll2": linkSLL2} {
		out["pcap "+name] = pcapOf(binary.LittleEndian, magicMicro, link, frames(link))
		out["pcap nanoseconds, the other order, "+name] = pcapOf(binary.BigEndian, magicNano, link, frames(link))
		out["pcapng "+name] = ngOf(binary.LittleEndian, link, frames(link))
		out["pcapng, the other order, "+name] = ngOf(binary.BigEndian, link, frames(link))
	}
	return out
}

// TestFormats: the same exchanges come out of every format.
func TestFormats(t *testing.T) {
	for name, file := range files() {
		got, skipped, err := read(file)
		if strings.Join(got, ", ") != wantExchanges || skipped != 3 || err != nil {
			t.Errorf("%s: %s, %d skipped, %v; want %s, 3 skipped", name, strings.Join(got, ", "), skipped, err, wantExchanges)
		}
	}
}

// TestDamaged: what stands before the damage comes out, and the damage is told.
func TestDamaged(t *testing.T) {
	for name, file := range files() {
		whole, _, err := read(file)
		if err != nil {
			t.Fatal(err)
		}
		cut := file[:len(file)-5]
		got, _, err := read(cut)
		if err == nil || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, cut off: error %v, want an unexpected end", name, err)
		}
		if len(got) < 2 || got[0] != whole[0] {
			t.Errorf("%s, cut off: %v, want what was before", name, got)
		}
	}
	for name, file := range map[string][]byte{"empty": nil, "text": []byte("; zone file"), "another stream": control(controlStart, contentField("protobuf:other")), "no start": control(controlStop, nil)} {
		if _, _, err := read(file); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want %v", name, err, ErrFormat)
		}
	}
	bad := binary.LittleEndian.AppendUint32(pcapOf(binary.LittleEndian, magicMicro, 1, nil), 0)
	bad = append(bad, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	if _, _, err := read(bad); err == nil || !strings.Contains(err.Error(), "octets") {
		t.Errorf("a record of 4 GB: %v", err)
	}
	kept := pcapOf(binary.LittleEndian, magicMicro, linkRaw, frames(linkRaw)[:1])
	binary.LittleEndian.PutUint32(kept[pcapHeader+12:], 9999) // the capture had cut it off
	if got, skipped, err := read(kept); len(got) != 0 || skipped != 1 || err != nil {
		t.Errorf("a packet that was cut off: %v, %d skipped, %v", got, skipped, err)
	}
}

// TestAskedAgain: a query that comes again before its reply is an unanswered one, and
// the second gets the reply.
func TestAskedAgain(t *testing.T) {
	q := ip4Of("198.51.100.5", "192.0.2.53", udpOf(4000, 53, message(1, false)))
	a := ip4Of("192.0.2.53", "198.51.100.5", udpOf(53, 4000, message(1, true)))
	got, skipped, err := read(pcapOf(binary.LittleEndian, magicMicro, linkRaw, [][]byte{q, q, a, a}))
	if want := "198.51.100.5:4000>192.0.2.53:53 1 false, 198.51.100.5:4000>192.0.2.53:53 1 true"; strings.Join(got, ", ") != want || skipped != 1 || err != nil {
		t.Errorf("%v, %d skipped, %v; want %s", got, skipped, err, want)
	}
}

// FuzzOpen: whatever a file holds, reading ends, and what comes out is whole.
func FuzzOpen(f *testing.F) {
	for _, file := range files() {
		f.Add(file)
		f.Add(file[:len(file)/2])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := Open(bytes.NewReader(file))
		if err != nil {
			return
		}
		Pair(r, func(e Exchange) {
			if len(e.Query) < headerDNS || e.Reply != nil && len(e.Reply) < headerDNS {
				t.Fatalf("an exchange of %d and %d octets", len(e.Query), len(e.Reply))
			}
		})
	})
}
