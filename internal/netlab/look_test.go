package netlab

import (
	"net/netip"
	"slices"
	"testing"
)

// TestEstablished reads lists as a little-endian kernel prints them.
func TestEstablished(t *testing.T) {
	const v4 = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 016433C6:00B3 026433C6:9C40 01 00000000:00000000 02:00000000 00000000     0        0 2 2 0
   2: 016433C6:9C41 036433C6:00B3 01 00000000:00000000 02:00000000 00000000     0        0 3 2 0
   3: 016433C6:9C42 046433C6:0050 01 00000000:00000000 02:00000000 00000000     0        0 4 2 0
   4: 016433C6:00B3 056433C6:9C43 06 00000000:00000000 02:00000000 00000000     0        0 0 2 0
`
	const v6 = `  sl  local_address                         remote_address                        st
   0: B80D0120000000000000000001000000:00B3 B80D0120000000000000000002000000:9C40 01 00000000:00000000
`
	got4, err := established(v4, 179)
	if want := []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.3")}; err != nil || !slices.Equal(got4, want) {
		t.Errorf("IPv4: %v (%v), want %v", got4, err, want)
	}
	got6, err := established(v6, 179)
	if want := []netip.Addr{netip.MustParseAddr("2001:db8::2")}; err != nil || !slices.Equal(got6, want) {
		t.Errorf("IPv6: %v (%v), want %v", got6, err, want)
	}
	if _, err := established("head\n 0: 0164:00B3 026433C6:9C40 01", 179); err == nil {
		t.Error("an end of two octets was read")
	}
}
