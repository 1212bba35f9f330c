package bgp

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestPeerCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Peer)
		want   string // part of the error; "" is none
	}{
		{"plain", func(*Peer) {}, ""},
		{"no address", func(p *Peer) { p.Address = netip.Addr{} }, "without an address"},
		{"no AS", func(p *Peer) { p.ASN = 0 }, "no AS"},
		{"RFC 4724 graceful restart", func(p *Peer) { p.GracefulRestart = true }, "graceful restart"},
		{"RFC 5082 gtsm", func(p *Peer) { p.GTSM = true }, ""},
		{"RFC 5082 gtsm and multihop", func(p *Peer) { p.GTSM, p.Multihop = true, 2 }, "one hop"},
		{"RFC 5082 gtsm within the AS", func(p *Peer) { p.GTSM, p.ASN = true, 64500 }, "eBGP"},
		{"multihop within the AS", func(p *Peer) { p.Multihop, p.ASN = 2, 64500 }, "eBGP"},
		{"RFC 4271 section 4.2 hold below three", func(p *Peer) { p.Hold, p.Keepalive = 2*time.Second, time.Second }, "below 3s"},
		{"hold 3, keepalive 1", func(p *Peer) { p.Hold, p.Keepalive = 3*time.Second, time.Second }, ""},
		{"hold alone", func(p *Peer) { p.Hold = 30 * time.Second }, ""},
		{"fractions", func(p *Peer) { p.Hold = 3500 * time.Millisecond }, "whole seconds"},
		{"RFC 5881 bfd", func(p *Peer) { p.BFD.Interval = 300 * time.Millisecond }, ""},
		{"RFC 5881 bfd and multihop", func(p *Peer) { p.BFD.Interval, p.Multihop = 300*time.Millisecond, 2 }, "directly connected"},
		{"bfd each millisecond", func(p *Peer) { p.BFD.Interval = time.Millisecond }, "want 10ms to 1m"},
		{"keepalive above a third", func(p *Peer) { p.Hold, p.Keepalive = 9*time.Second, 4*time.Second }, "a third"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Peer{Address: router, ASN: 64501}
			tt.change(&p)
			err := p.Check(64500)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTimerDefaults(t *testing.T) {
	var p Peer
	if h, k := p.timers(); h != DefaultHold || k != DefaultKeepalive {
		t.Errorf("timers %v %v, want %v %v", h, k, DefaultHold, DefaultKeepalive)
	}
}
