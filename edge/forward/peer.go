package forward

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// Peer is a site of the group as this one's forwarder reaches it; of a site with several
// edges each is a peer of its own.
type Peer struct {
	Site string
	// Near tells that it is another edge of this very site.
	Near bool
	// Addr is where the peer's forwarder listens: a unicast address.
	Addr netip.AddrPort
	// Key is known to this site and the peer alone.
	Key [32]byte
	// Previous, unless zero, is a key that is still accepted while a new
	// one is handed out.
	Previous [32]byte
	// At is where the site stands; zero: not known.
	At placement.Position
}

const (
	// smallMTU is what every IPv6 path carries (RFC 8200 section 5); it is
	// used where a path refused more and the kernel doesn't say how much it
	// takes. leastMTU is what we believe of no path (RFC 791 section 3.2).
	smallMTU = 1280
	leastMTU = 576
	// pathLife is how long the kernel itself keeps what it learnt (RFC 1191
	// section 6.3).
	pathLife = 10 * time.Minute

	// digestLife is how long an announced flow is believed, and maxDigests
	// how many of one peer.
	digestLife = 10 * time.Minute
	maxDigests = 1 << 20
)

// peer is a Peer with all that is derived from it, and a pointer to what
// outlives a change of the list.
type peer struct {
	Peer
	id  siteID
	out seal
	in  []seal
	*peerState
}

// peerState is what is remembered of a site for as long as the process lives;
// numbers are never used twice.
type peerState struct {
	salt  [4]byte
	seq   atomic.Uint64
	parts atomic.Uint32
	// path is what was learnt of the path, nil before anything was.
	path atomic.Pointer[path]
	detourState

	// These are the tunnel reader's.
	window window
	joiner joiner

	// These are under the forwarder's lock: announced digests and the end
	// of each, and one sample of the time an answer takes.
	digests map[uint64]time.Time
	sample  sample

	peerCounts
}

// detourState is what the goroutine that decides about relays tells those that send and
// receive.
type detourState struct {
	// route leads round a broken path; nil: directly.
	route atomic.Pointer[route]
	// unreached: this site doesn't reach the peer itself.
	unreached atomic.Bool
}

// peerCounts counts what goes to the peer, comes from it, and is passed on for it.
type peerCounts struct {
	packets, octets, arrivals prometheus.Counter
	relayed, relayedOctets    prometheus.Counter
}

// path is the largest packet that reached a site lately, and the end of that
// belief: paths grow again without a word.
type path struct {
	mtu   int
	until time.Time
}

// sample times one question at a time: of is the one being timed, sent is
// zero when none is, rtt is the smoothed result.
type sample struct {
	of   session
	sent time.Time
	rtt  time.Duration
}

// peerSet is the list of peers, immutable.
type peerSet struct {
	sites  []string // sorted
	near   []string // those of this very site, sorted
	bySite map[string]*peer
	byID   map[siteID]*peer
}

// newPeerSet checks and derives; it carries over what is known of sites that
// stay.
func (f *Forwarder) newPeerSet(list []Peer, old *peerSet) (*peerSet, error) {
	set := &peerSet{bySite: make(map[string]*peer), byID: make(map[siteID]*peer)}
	for _, p := range list {
		if err := f.checkPeer(p); err != nil {
			return nil, err
		}
		n := &peer{Peer: p, id: idOf(p.Site)}
		if other := set.byID[n.id]; other != nil {
			return nil, fmt.Errorf("forward: peers %q and %q share a name or its hash: rename one", other.Site, p.Site)
		}
		if err := n.derive(f.site); err != nil {
			return nil, err
		}
		if known := old.find(p.Site); known != nil {
			n.peerState = known.peerState
		} else {
			n.peerState = f.newPeerState(p.Site)
		}
		set.sites = append(set.sites, p.Site)
		if p.Near {
			set.near = append(set.near, p.Site)
		}
		set.bySite[p.Site], set.byID[n.id] = n, n
	}
	slices.Sort(set.sites)
	slices.Sort(set.near)
	return set, nil
}

// find returns a peer by its site, or nil.
func (s *peerSet) find(site string) *peer {
	if s == nil {
		return nil
	}
	return s.bySite[site]
}

// checkPeer refuses a peer that can't work.
func (f *Forwarder) checkPeer(p Peer) error {
	switch {
	case p.Site == "" || strings.ContainsRune(p.Site, 0):
		return fmt.Errorf("forward: peer %q: a site needs a name", p.Site)
	case p.Site == f.site || idOf(p.Site) == f.id:
		return fmt.Errorf("forward: peer %q: that is this site, or shares its hash", p.Site)
	case !p.Addr.IsValid() || p.Addr.Port() == 0 || p.Addr.Addr().Is4() != f.local.Addr().Is4():
		return fmt.Errorf("forward: peer %q: address %s is none of the family of our own, %s", p.Site, p.Addr, f.local)
	case p.Key == [32]byte{}:
		return fmt.Errorf("forward: peer %q: no key", p.Site)
	}
	return nil
}

// derive makes the seals from the pair's keys.
func (p *peer) derive(self string) (err error) {
	if p.out, err = newSeal(p.Key, self, p.Site); err != nil {
		return err
	}
	for _, key := range [][32]byte{p.Key, p.Previous} {
		if key == [32]byte{} {
			continue
		}
		in, err := newSeal(key, p.Site, self)
		if err != nil {
			return err
		}
		p.in = append(p.in, in)
	}
	return nil
}

// newPeerState begins to know a site. Its numbers begin with the clock, so
// they stand above those of an earlier process.
func (f *Forwarder) newPeerState(site string) *peerState {
	s := &peerState{digests: make(map[uint64]time.Time)}
	_, _ = rand.Read(s.salt[:]) // crypto/rand never fails
	s.seq.Store(uint64(f.now().UnixNano()))
	s.packets = f.metrics.forwarded.WithLabelValues(site)
	s.octets = f.metrics.octets.WithLabelValues(site)
	s.arrivals = f.metrics.arrivals.WithLabelValues(site)
	s.relayed = f.metrics.relay.packets.WithLabelValues(site)
	s.relayedOctets = f.metrics.relay.octets.WithLabelValues(site)
	return s
}

// open returns the body of a datagram from this peer, if its tag is right and
// it is new. The tunnel reader calls it.
func (p *peer) open(h head, b []byte) ([]byte, error) {
	err := errTag
	var body []byte
	for _, in := range p.in {
		// The id only saves work: that of two keys may be the same.
		if in.id != h.keyID {
			continue
		}
		if body, err = in.open(b); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	// Only now: a forged number must not move the window.
	if !p.window.accept(h.seq) {
		return nil, errReplay
	}
	return body, nil
}

var errReplay = errors.New("seen before, or too old")

// room is the size of the largest body that the path carries in one datagram.
func (p *peer) room(now time.Time, mtu int) int {
	if learnt := p.path.Load(); learnt != nil && now.Before(learnt.until) {
		mtu = min(mtu, learnt.mtu)
	}
	udpIP := 8 + 20
	if p.Addr.Addr().Is6() {
		udpIP = 8 + 40
	}
	return mtu - udpIP - overhead
}

// digest names a session in announcements from owner. Only the pair can compute
// it, so whoever reads along learns nothing about clients.
func (p *peer) digest(owner string, s session) uint64 {
	mac := hmac.New(sha256.New, p.Key[:])
	fmt.Fprintf(mac, "rhumb digest 1\x00%s\x00", owner)
	mac.Write(appendSession(nil, s))
	return binary.BigEndian.Uint64(mac.Sum(nil))
}
