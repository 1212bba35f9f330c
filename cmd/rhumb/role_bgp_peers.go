package main

import (
	"rhumb/bgp"
	"rhumb/internal/config"
)

// bgpPeers maps the neighbours of a node file. A session carries the family of
// its own address, but for that with a daemon of this host: it is one for both.
func bgpPeers(b *config.BGP) []bgp.Peer {
	var out []bgp.Peer
	for i := range b.Peers {
		p := &b.Peers[i]
		beside := p.Addr.IsLoopback() || p.Local.IsLoopback()
		out = append(out, bgp.Peer{Address: p.Addr, ASN: p.ASN, Password: p.Password, GTSM: p.GTSM,
			Multihop: uint8(p.Multihop), Hold: b.Hold.D(), Keepalive: keepalive(b.Hold.D()),
			OwnFamily: !beside, AllPaths: beside,
			Local: p.Local, Passive: p.Passive, Probe: pathProbe(p.Probe),
			BFD: bgp.PeerBFD{Interval: p.BFD.Interval.D(), Multiplier: uint8(p.BFD.Multiplier), Port: uint16(p.BFD.Port)}})
	}
	return out
}

// pathProbe maps a probe of the path behind a neighbour; nil is none.
func pathProbe(p *config.PathProbe) *bgp.Probe {
	if p == nil {
		return nil
	}
	return &bgp.Probe{Targets: p.Targets, From: p.From, Interface: p.Interface, Every: p.Every.D(), Fall: p.Fall, Rise: p.Rise, Act: p.Step()}
}
