package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// QUICOwner says how the owner of a QUIC connection is found.
type QUICOwner uint8

const (
	// ByFlow: the site that saw the connection begin on this flow. A client
	// whose address changes while its route flips is lost.
	ByFlow QUICOwner = iota
	// ByConnectionID: the servers write their site's id into the connection ids
	// they choose, in clear (draft-ietf-quic-load-balancers, the algorithm
	// without a key). Nobody is asked, and clients may change their address.
	ByConnectionID
)

// String returns the word used in configuration.
func (o QUICOwner) String() string {
	if o == ByConnectionID {
		return "cid"
	}
	return "flow"
}

// QUICVIP is how the QUIC packets to an address and port are treated.
type QUICVIP struct {
	Mode  Mode
	Owner QUICOwner
}

// QUIC is what the forwarder knows of the servers' QUIC. It is immutable once
// given to SetQUIC.
type QUIC struct {
	VIPs map[netip.AddrPort]QUICVIP
	// ServerIDs are the ids that the sites' servers write into connection ids,
	// by site; all of one length. ByConnectionID needs them.
	ServerIDs map[string][]byte
}

// The forms of QUIC packets (RFC 9000 section 17, RFC 9369 section 3.2).
const (
	quicLong = 0x80
	quicType = 0x30
	quicV1   = 1
	quicV2   = 0x6b3343cf
	// initialV1 and initialV2 are the types of a connection's first packet.
	initialV1 = 0x00
	initialV2 = 0x10

	// maxConnectionID is the length that versions 1 and 2 allow.
	maxConnectionID = 20
	// noServer in the first three bits of a connection id says that it holds
	// no server's id.
	noServer = 7
	// maxServerID leaves room for the nonce of at least 4 octets.
	maxServerID = 15
)

// quicIdle is how long a flow is known without a packet of its client: what
// servers wait before they give a connection up is shorter.
const quicIdle = 90 * time.Second

// destinationID returns what follows the length of the destination connection
// id in a packet; of a short header, whose length only its server knows, all
// that may be one.
func destinationID(p []byte) ([]byte, bool) {
	if len(p) < 1 {
		return nil, false
	}
	if p[0]&quicLong == 0 {
		return p[1:min(len(p), 1+maxConnectionID)], true
	}
	if len(p) < 6 || int(p[5]) > maxConnectionID || len(p) < 6+int(p[5]) {
		return nil, false
	}
	return p[6 : 6+int(p[5])], true
}

// serverOf returns the server's id within a connection id, if there is one.
func serverOf(cid []byte, size int) ([]byte, bool) {
	if size == 0 || len(cid) < 1+size || cid[0]>>5 == noServer {
		return nil, false
	}
	return cid[1 : 1+size], true
}

// startsConnection tells whether a datagram may be the first of a connection:
// it begins with an Initial packet, or with a long header of a version that
// has other types than those we know.
func startsConnection(p []byte) bool {
	if len(p) < 5 || p[0]&quicLong == 0 {
		return false
	}
	switch binary.BigEndian.Uint32(p[1:]) {
	case quicV1:
		return p[0]&quicType == initialV1
	case quicV2:
		return p[0]&quicType == initialV2
	}
	return true
}

// siteOf returns the site that a datagram's connection id names, or "".
func (q *QUIC) siteOf(datagram []byte) string {
	cid, ok := destinationID(datagram)
	if !ok {
		return ""
	}
	for site, id := range q.ServerIDs {
		if got, ok := serverOf(cid, len(id)); ok && bytes.Equal(got, id) {
			return site
		}
	}
	return ""
}

// check refuses what can't work at this site.
func (q *QUIC) check(self string) error {
	byID := false
	for vip, v := range q.VIPs {
		if !vip.IsValid() || vip.Port() == 0 || vip.Addr().Zone() != "" || vip.Addr().Is4In6() {
			return fmt.Errorf("forward: QUIC at %s: an address and a port are needed", vip)
		}
		byID = byID || v.Owner == ByConnectionID
	}
	if byID && len(q.ServerIDs[self]) == 0 {
		return fmt.Errorf("forward: QUIC by connection id: site %q has no server id", self)
	}
	size, seen := len(q.ServerIDs[self]), make(map[string]string)
	for _, site := range slices.Sorted(maps.Keys(q.ServerIDs)) {
		id := q.ServerIDs[site]
		if size == 0 {
			size = len(id)
		}
		if len(id) != size || size == 0 || size > maxServerID {
			return fmt.Errorf("forward: server id %x of site %q: 1 to %d octets, as many as the others, are needed", id, site, maxServerID)
		}
		if other, twice := seen[string(id)]; twice {
			return fmt.Errorf("forward: sites %q and %q have the same server id %x", other, site, id)
		}
		seen[string(id)] = site
	}
	return nil
}

// SetQUIC replaces what is known of the servers' QUIC. If it is wrong, the old
// stays. UDP to other ports is the kernel's alone.
func (f *Forwarder) SetQUIC(q QUIC) error {
	if err := q.check(f.site); err != nil {
		return err
	}
	f.quic.Store(&q)
	f.renewSoon()
	return nil
}

// judgeQUIC handles a stray whose connection id may tell its site. One that
// names nobody, or this site, is the kernel's.
func (f *Forwarder) judgeQUIC(now time.Time, s stray, q *QUIC, steps []step) []step {
	watch := q.VIPs[s.flow.VIP].Mode == Observe
	site := q.siteOf(s.datagram)
	if f.peers.Load().find(site) == nil {
		if !watch {
			f.giveBack(s.packet)
		}
		return steps
	}
	f.mu.Lock()
	steps = f.udp.routed(now, s.flow, site, s.packet, watch, steps)
	f.mu.Unlock()
	return steps
}
