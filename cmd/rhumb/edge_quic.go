package main

import (
	"encoding/hex"
	"net/netip"

	"rhumb/edge/forward"
	"rhumb/placement"
)

// quicVIPs is what the forwarder shall do with QUIC.
func quicVIPs(inv *placement.Inventory, own placement.Mode) forward.QUIC {
	q := forward.QUIC{VIPs: make(map[netip.AddrPort]forward.QUICVIP), ServerIDs: make(map[string][]byte)}
	byID := false
	for _, s := range inv.Services {
		if s.Edge == nil || s.Edge.QUIC == "" {
			continue
		}
		v := forward.QUICVIP{Mode: forward.Observe}
		if edgeMode(inv, &s, own) == placement.Act {
			v.Mode = forward.Act
		}
		if s.Edge.QUIC == placement.QUICByID {
			v.Owner, byID = forward.ByConnectionID, true
		}
		for _, vip := range s.Edge.VIPs {
			q.VIPs[vip] = v
		}
	}
	for _, m := range edges(inv, "") {
		// The configuration checked them where they are needed.
		if id, err := hex.DecodeString(m.QUICID); byID && err == nil {
			q.ServerIDs[m.Name] = id
		}
	}
	return q
}
