package edge

import (
	"testing"

	"rhumb/edge/tcprepair"
)

// TestNewestIsHeard: of more segments than a round keeps, those that came last are there.
func TestNewestIsHeard(t *testing.T) {
	rd := &round{heard: make(chan tcprepair.Segment, 4)}
	for i := range 9 {
		rd.hear(tcprepair.Segment{Ack: uint32(i)})
	}
	for want := uint32(5); want < 9; want++ {
		if got := (<-rd.heard).Ack; got != want {
			t.Errorf("acknowledges %d, want %d", got, want)
		}
	}
}
