package tcprepair

import (
	"net/netip"
	"testing"
)

func segmentSamples() []Segment {
	four, six := netip.MustParseAddrPort("192.0.2.10:8080"), netip.MustParseAddrPort("[2001:db8:100::10]:8080")
	c4, c6 := netip.MustParseAddrPort("198.51.100.2:40001"), netip.MustParseAddrPort("[2001:db8:1::2]:40001")
	return []Segment{
		{Src: four, Dst: c4, Seq: 0xfffffff0, Ack: 7, Flags: ACK | PSH, Window: 512, Timestamps: true, TSVal: 1, TSEcr: 2, Data: 1},
		{Src: four, Dst: c4, Seq: 1, Ack: 0xffffffff, Flags: RST | ACK},
		{Src: c6, Dst: six, Seq: 5, Ack: 6, Flags: ACK, Window: 65535, Timestamps: true, TSVal: 0xfffffffe, TSEcr: 9},
		{Src: c6, Dst: six, Seq: 5, Ack: 6, Flags: ACK | FIN, Data: 3},
	}
}

func TestSegmentRoundTrip(t *testing.T) {
	for _, want := range segmentSamples() {
		p := want.Append(nil)
		got, err := ParseSegment(p)
		if err != nil || got != want {
			t.Errorf("read %+v, %v\nwant %+v", got, err, want)
		}
		if _, err := ParseSegment(append(p, 0, 0)); err != nil {
			t.Errorf("with Ethernet's padding: %v", err)
		}
	}
}

// TestSegmentChecksums sums what a receiver sums: with the checksum in place the
// result is zero (RFC 1071 section 1).
func TestSegmentChecksums(t *testing.T) {
	for _, s := range segmentSamples() {
		p := s.Append(nil)
		head := ipv6Size
		if s.Src.Addr().Is4() {
			head = ipv4Size
			if got := fold(checksum(0, p[:head])); got != 0 {
				t.Errorf("%s: IP header sums to %#x, want 0", s.Src, got)
			}
		}
		sum := checksum(0, s.Src.Addr().AsSlice())
		sum = checksum(sum, s.Dst.Addr().AsSlice())
		if got := fold(checksum(sum+protoTCP+uint32(len(p)-head), p[head:])); got != 0 {
			t.Errorf("%s: segment sums to %#x, want 0", s.Src, got)
		}
	}
}

func TestSegmentRefusesWhatIsNone(t *testing.T) {
	good := segmentSamples()[0].Append(nil)
	change := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	for name, p := range map[string][]byte{
		"nothing": nil, "cut": good[:30], "UDP": change(9, 17), "a fragment": change(6, 0x20), "version 5": change(0, 0x55),
		"data offset below 5": change(32, 0x40), "data offset behind the end": change(32, 0xf0), "total length behind the end": change(2, 1),
	} {
		if s, err := ParseSegment(p); err == nil {
			t.Errorf("%s was read as %+v", name, s)
		}
	}
}

func FuzzParseSegment(f *testing.F) {
	for _, s := range segmentSamples() {
		f.Add(s.Append(nil))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := ParseSegment(p)
		if err != nil {
			return
		}
		// What was read can be written and read again.
		if again, err := ParseSegment(s.Append(nil)); err != nil || again != s {
			t.Errorf("%+v came back as %+v, %v", s, again, err)
		}
	})
}
