package edge

import (
	"slices"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// site is whose certificate a peer has.
func (p Peer) site() string { return or(p.Of, p.Name) }

// home is the site of this edge.
func (c Config) home() string { return or(c.Of, c.Site) }

// isNear reports whether a peer is another edge of this very site.
func (a *Agent) isNear(p Peer) bool { return p.site() == a.cfg.home() }

// The tiers of Backups. A session has one in each, where there is any: next door for the
// loss of a node, elsewhere for that of the site.
const (
	tierNear = iota
	tierFar
	tierCount
	// tierDeposit is beside them: who keeps the record of a session without a Backup for
	// the next process of its owner.
	tierDeposit = tierCount
)

// known is what the choice of Backups follows from; all are replaced, never changed.
type known struct {
	view          *view
	down, doubted *[]string
}

// tiered are those who may be Backups, as of what is known. It belongs to replica.Run.
type tiered struct {
	known
	peers [tierCount][]Peer
	may   map[string]bool // those of them who have weight
}

// tiers are those who may be Backups now.
func (t *tiered) tiers(a *Agent) [tierCount][]Peer {
	now := known{a.view.Load(), a.revival.down.Load(), a.revival.doubted.Load()}
	if t.known == now {
		return t.peers
	}
	t.known, t.peers, t.may = now, [tierCount][]Peer{}, map[string]bool{}
	for _, p := range a.alive() {
		i := tierFar
		if a.isNear(p) {
			i = tierNear
		}
		t.peers[i] = append(t.peers[i], p)
	}
	for i, peers := range t.peers {
		t.peers[i] = certain(peers, *now.doubted)
		for _, p := range t.peers[i] {
			t.may[p.Name] = p.Weight > 0
		}
	}
	return t.peers
}

// certain leaves out who is down but for the removal cap, unless nobody else has weight: then
// it may be the monitor that is broken, and those are as good as before.
func certain(peers []Peer, doubted []string) []Peer {
	sure := slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return slices.Contains(doubted, p.Name) })
	if !slices.ContainsFunc(sure, func(p Peer) bool { return p.Weight > 0 }) {
		return peers
	}
	return sure
}

// leaves reports whether who has records of this edge's sessions is a Backup no more: down, down
// but for the removal cap, or without weight.
func (r *replica) leaves(backup string) bool {
	r.tiers(r.a)
	return !r.may[backup]
}

// mayKeep reports whether a peer is one of the Backups of a session.
func (s *session) mayKeep(peer string) bool {
	return slices.ContainsFunc(s.backups(), func(b string) bool { return b == peer })
}

// ward names who has the record of a session whose upload it may keep, too: elsewhere rather
// than next door, since that outlives the site as well. nil: nobody yet, or nobody at all.
func (s *session) ward() *string {
	if b := s.backup[tierFar].Load(); b != nil || s.bare[tierFar].Load() {
		return b
	}
	return s.backup[tierNear].Load()
}

// wardless reports whether nobody has room for the session who could keep its upload.
func (s *session) wardless() bool {
	return s.bare[tierFar].Load() || s.bare[tierNear].Load() && s.backup[tierFar].Load() == nil
}

// wanted are the Backups of a turn: all, or for an upload the one tier which keeps that.
func (t *turn) wanted(tiers [tierCount][]Peer) [tierCount][]Peer {
	if t.rec.Flags&frame.Upload != 0 && len(tiers[tierFar]) > 0 {
		tiers[tierNear] = nil
	}
	return tiers
}

// kept reports whether anybody has the session's record, be it as a deposit.
func (s *session) kept() bool {
	if s.deposit.Load() != nil {
		return true
	}
	for i := range s.backup {
		if s.backup[i].Load() != nil {
			return true
		}
	}
	return false
}

// backups are who have the session's record, the one next door first.
func (s *session) backups() (out []string) {
	for i := range s.backup {
		if b := s.backup[i].Load(); b != nil {
			out = append(out, *b)
		}
	}
	return out
}

// tellKeepers tells everybody that a session of a node of this site goes on here. Whoever
// keeps a record of it at another site, for the loss of all of this one, shall not revive
// what the record says.
func (v *revival) tellKeepers(rd *round) {
	owner, ok := v.a.view.Load().peer(rd.from)
	if !ok || !v.a.isNear(owner) {
		return
	}
	for _, p := range v.a.view.Load().peers {
		if l := v.a.links.have(p.Name); l != nil && p.Name != rd.from {
			_ = l.send(frame.Frame{Type: frame.Claimed, Key: rd.rec.Key, Epoch: rd.epoch}) // without it the record expires
		}
	}
}

// supersededBy heeds the word of another edge that it has taken a session over which is not
// here: one that an earlier process of this edge left, or one whose record is kept here.
func (a *Agent) supersededBy(l *link, f frame.Frame) {
	if a.revival.disown(f.Key) {
		// What the earlier process left of it would take its packets.
		if _, err := tcprepair.Destroy(f.Key.VIP, f.Key.Client); err != nil {
			a.log.Warn("end what is left of a session that was taken over", "peer", l.peer, "err", err)
		}
		a.revival.letGo(f.Key)
		a.quiet.remove(flowOf(f.Key))
		a.strays.Moved(f.Key, l.peer)
		return
	}
	v := a.view.Load()
	claimant, known := v.peer(l.peer)
	owner, ok := v.peer(a.replica.owner(f.Key))
	if known && ok && owner.site() == claimant.site() {
		a.replica.supersede(f.Key, f.Epoch)
	}
}

// disown strikes a session off those that an earlier process left.
func (v *revival) disown(k frame.Key) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.orphans[k]
	delete(v.orphans, k)
	return was
}

// supersede drops a record of an epoch that is over.
func (r *replica) supersede(k frame.Key, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.store[k]; ok && old.rec.Epoch < epoch {
		r.drop(k)
	}
}

// yield ends the rounds of an edge's sessions, whose new process asks for them, and returns
// when their records are back.
func (v *revival) yield(from string) {
	var ended []*round
	v.mu.Lock()
	for _, rd := range v.rounds {
		if rd.from == from {
			rd.end()
			ended = append(ended, rd)
		}
	}
	v.mu.Unlock()
	for _, rd := range ended {
		<-rd.done
	}
}

// tellHeirs tells an edge's new process which sessions of the earlier one go on here.
func (a *Agent) tellHeirs(l *link) {
	for _, s := range a.tab.all() {
		if s.heirOf == l.peer {
			_ = l.send(frame.Frame{Type: frame.Claimed, Key: s.key, Epoch: s.epoch, Generation: s.gen.Load()}) // a dead link asks again by another
		}
	}
}
