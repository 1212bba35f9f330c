package tcprepair

import "testing"

// TestSegment: a peer's largest window has room for two segments, whatever it is.
func TestSegment(t *testing.T) {
	for _, tc := range []struct {
		name   string
		window uint32
		clock  bool
		want   uint32
	}{
		{"none known", 0, true, 1460},
		{"large", 65535, true, 1460},
		{"two segments", 2 * 1448, true, 1460},
		{"one segment", 1460, true, 730 + clockBytes},
		{"one segment, no timestamps", 1460, false, 730},
		{"no more than the least that all have", 536, false, 536},
		{"one byte more", 537, false, 268},
		{"next to nothing", 1, false, leastMSS},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := State{Options: Options{MSS: 1460, Timestamps: tc.clock}, Window: Window{MaxWindow: tc.window}}
			if got := st.segment(); got != tc.want {
				t.Errorf("%d, want %d", got, tc.want)
			}
		})
	}
}
