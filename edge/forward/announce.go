package forward

import (
	"encoding/binary"
	"fmt"
	"time"
)

const (
	digestSize = 8
	// digestsEach is how many digests go in a datagram: it fits any path.
	digestsEach = 128
)

// Announce tells all peers which flows this site owns, so that they need not
// ask when strays of them arrive: a site does this before its route leaves.
// It returns how many flows there are. What gets lost on the way is asked for.
func (f *Forwarder) Announce() (int, error) { return f.announce(f.peers.Load().sites) }

// AnnounceNear tells the other edges of this site alone: when one of them comes or goes,
// the router in front spreads the flows anew.
func (f *Forwarder) AnnounceNear() (int, error) { return f.announce(f.peers.Load().near) }

// announce tells some peers.
func (f *Forwarder) announce(sites []string) (int, error) {
	if len(sites) == 0 {
		return 0, nil
	}
	// All at once, so that the sockets' list isn't held while we send.
	var own []session
	if err := f.eachOwned(func(s session) { own = append(own, s) }); err != nil {
		return 0, err
	}
	set := f.peers.Load()
	for _, site := range sites {
		p := set.find(site)
		if p == nil {
			continue // it left the group since
		}
		body := make([]byte, 0, digestsEach*digestSize)
		for i, s := range own {
			body = binary.BigEndian.AppendUint64(body, p.digest(f.site, s))
			if len(body) < cap(body) && i < len(own)-1 {
				continue
			}
			if err := f.send(p, kindAnnounce, body); err != nil {
				return 0, fmt.Errorf("forward: announce to %s: %w", site, err)
			}
			body = body[:0]
		}
	}
	return len(own), nil
}

// learn keeps a peer's digests.
func (f *Forwarder) learn(now time.Time, p *peer, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// A datagram that is no multiple of a digest ends with what is whole.
	for ; len(body) >= digestSize; body = body[digestSize:] {
		if len(p.digests) >= maxDigests {
			p.forget(now)
		}
		if len(p.digests) < maxDigests {
			p.digests[binary.BigEndian.Uint64(body)] = now.Add(digestLife)
		}
	}
}

// unlearn drops all that a peer announced. Under the lock.
func (f *Forwarder) unlearn(site string) {
	if p := f.peers.Load().find(site); p != nil {
		clear(p.digests)
	}
}

// forget drops the digests whose time is up. Under the forwarder's lock.
func (s *peerState) forget(now time.Time) {
	for digest, until := range s.digests {
		if !now.Before(until) {
			delete(s.digests, digest)
		}
	}
}

// announcedBy returns the peer that announced a session, or "". Under the lock.
func (f *Forwarder) announcedBy(s session) string {
	set := f.peers.Load()
	now := f.now()
	for _, site := range set.sites {
		p := set.bySite[site]
		if len(p.digests) == 0 {
			continue
		}
		if until, ok := p.digests[p.digest(site, s)]; ok && now.Before(until) {
			return site
		}
	}
	return ""
}

// retire drops a peer's announcement of a session it no longer has. Under the
// lock.
func (f *Forwarder) retire(site string, s session) {
	if p := f.peers.Load().find(site); p != nil && len(p.digests) > 0 {
		delete(p.digests, p.digest(site, s))
	}
}
