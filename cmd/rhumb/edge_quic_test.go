package main

import (
	"bytes"
	"net/netip"
	"testing"

	"rhumb/edge/forward"
	"rhumb/placement"
)

// TestQUICVIPs maps services to what the forwarder does; ids matter only where
// connection ids name sites.
func TestQUICVIPs(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:443")
	inv := &placement.Inventory{Fleet: placement.Fleet{
		Sites: []placement.Site{
			{Name: "ams1", Edge: netip.MustParseAddrPort("198.51.100.9:5381"), QUICID: "0a01"},
			{Name: "nyc1", QUICID: "0b"}, // no role edge there
		},
		Services: []placement.Service{{Name: "www", Edge: &placement.Edge{Kind: placement.Forward, Mode: placement.Act, VIPs: []netip.AddrPort{at}}}},
	}}
	for _, e := range []struct {
		owner placement.QUICOwner
		own   placement.Mode
		want  *forward.QUICVIP
		ids   int
	}{
		{"", placement.Act, nil, 0},
		{placement.QUICByFlow, placement.Act, &forward.QUICVIP{Mode: forward.Act}, 0},
		{placement.QUICByFlow, placement.Observe, &forward.QUICVIP{}, 0},
		{placement.QUICByID, placement.Act, &forward.QUICVIP{Mode: forward.Act, Owner: forward.ByConnectionID}, 1},
	} {
		inv.Services[0].Edge.QUIC = e.owner
		q := quicVIPs(inv, e.own)
		v, ok := q.VIPs[at]
		if ok != (e.want != nil) || ok && v != *e.want || len(q.ServerIDs) != e.ids {
			t.Errorf("%q in mode %s: %+v", e.owner, e.own, q)
		}
		if e.ids > 0 && !bytes.Equal(q.ServerIDs["ams1"], []byte{0x0a, 0x01}) {
			t.Errorf("ids %x", q.ServerIDs)
		}
	}
}
