package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rhumb/health/detect"
	"rhumb/placement"
)

// How votes travel on beats: each when it is cast, and twice more at the next
// turns, since datagrams get lost; all of them now and then, and to whoever has
// just come.
const (
	tellAgain = 2
	tellAll   = 40 // turns, two minutes
	// pathAfter is how long our path to a site must be broken before we say so.
	// Paths break for a second many times a day, and nobody acts on that.
	pathAfter = 2 * time.Second
)

// brokenPath is a path which broke a moment ago.
type brokenPath struct {
	since time.Time
	cause string
}

// setPeers replaces the peers.
func (a *Agent) setPeers(peers []Peer) {
	sites, spoke := make(map[uint16]string, len(peers)), make(map[uint16]time.Time)
	var out []detect.Peer
	for _, p := range peers {
		if len(p.Keys) == 0 {
			continue // it could neither be believed nor spoken to
		}
		sites[p.NodeID], a.home.halfLife = p.Site, p.HalfLife
		spoke[p.NodeID] = a.ballot.spoke[p.NodeID]
		out = append(out, detect.Peer{Name: p.Site, Node: p.NodeID, Addr: p.Addr, Keys: p.Keys, Watches: p.Watches})
	}
	a.sites, a.ballot.spoke = sites, spoke
	maps.DeleteFunc(a.states, func(node uint16, _ detect.State) bool { return sites[node] == "" })
	maps.DeleteFunc(a.ballot.nodes, func(_ string, node uint16) bool { return sites[node] == "" })
	a.link.Set(out)
}

// sendVotes tells the peers votes; before the link runs there are none to tell.
func (a *Agent) sendVotes(votes []placement.Vote) {
	if a.link == nil {
		return
	}
	const room = detect.MaxDatagram - 64 // header, tag, and some to spare
	a.link.SendVotes(packVotes(votes, room))
}

// repeat tells votes again: those that are new, and sometimes all; and it repeats
// what others said to the readers of the stream, who forget what is not repeated.
func (a *Agent) repeat() {
	a.votes++
	var again []placement.Vote
	for _, v := range a.ballot.votes() {
		if a.told[v.Object] < tellAgain || a.votes%tellAll == 0 {
			a.told[v.Object]++
			again = append(again, v)
		}
	}
	a.sendVotes(again)
	if a.cfg.Stream != nil {
		for _, v := range a.ballot.others() {
			a.cfg.Stream.Vote(v)
		}
	}
}

// heard takes what the link has to tell. checkNow is called when another site says that
// this one is down.
func (a *Agent) heard(checkNow func()) {
	for _, e := range a.link.Take() {
		site, ok := a.sites[e.Node]
		switch {
		case e.Hold != nil:
			a.hold(*e.Hold, time.Now())
			a.mark(time.Now())
		case e.Heard != nil:
			a.hears(e.Heard)
		case !ok: // no longer a peer
		case e.Change != nil:
			a.judged(e.Node, site, e.Change)
		case e.Votes != nil:
			a.ballot.spoke[e.Node] = time.Now()
			if a.hearVotes(e.Node, site, e.Votes) {
				checkNow()
			}
		}
	}
}

func (a *Agent) hearVotes(node uint16, site string, body []byte) (accused bool) {
	votes, err := unpackVotes(body)
	if err != nil {
		a.link.BadVotes(node)
	}
	for _, v := range votes {
		accused = accused || v.Site == site && a.ballot.accuses(&v)
		if v.Site == site {
			a.ballot.nodes[v.Vantage] = node
		}
		// A site speaks for its own vantages only. A repeated vote goes to the
		// stream again, whose readers forget what is not repeated.
		if v.Site == site && a.ballot.hear(v) && a.cfg.Stream != nil {
			a.cfg.Stream.Vote(v)
		}
	}
	return accused
}

// judge ends the votes of silent vantages, and tells of paths that stay broken.
func (a *Agent) judge(now time.Time) {
	if !a.home.heldAt.IsZero() {
		a.m.hold.Add(now.Sub(a.home.heldAt).Seconds())
		a.home.heldAt = now
	}
	a.overdue(now)
	a.closeErrands(now)
	a.confirm(now)
	a.mark(now)
	a.comeBack(now)
	for node, site := range a.sites {
		if at := a.link.Heard(node); at.After(a.ballot.spoke[node]) {
			a.ballot.spoke[node] = at
		}
		if p, ok := a.paths[node]; ok && now.Sub(p.since) >= pathAfter {
			delete(a.paths, node)
			a.vote(placement.Vote{Object: placement.SiteID(site), State: placement.Path, Cause: p.cause})
		}
	}
	for _, key := range a.ballot.silence(now.Add(-silentAfter)) {
		if a.cfg.Stream != nil {
			a.cfg.Stream.Drop(key.object, key.vantage)
		}
	}
}

// bySite folds the states of a site's nodes: it is heard while any of them is, and gone
// when all are. One that was never heard says nothing: it may never have been started.
func (a *Agent) bySite(site string) detect.State {
	order := []detect.State{detect.Unknown, detect.Down, detect.Left, detect.Path, detect.Up}
	out := detect.Unknown
	for node, s := range a.states {
		if a.sites[node] == site && slices.Index(order, s) > slices.Index(order, out) {
			out = s
		}
	}
	return out
}

// judged turns what the detector saw into a vote on a site. A site that said
// goodbye (an upgrade, a restart) is not down before it has stayed away for long.
func (a *Agent) judged(node uint16, site string, c *detect.Change) {
	v := placement.Vote{Object: placement.SiteID(site), Hold: a.ballot.held(placement.SiteID(site))}
	now := time.Now()
	before := a.bySite(site)
	a.states[node] = c.State
	if c.State == detect.Up {
		clear(a.told) // it may have just started, and knows no votes
	}
	state := a.bySite(site)
	if state == before && state != c.State {
		return // the site's other node has more to say
	}
	maps.DeleteFunc(a.paths, func(n uint16, _ brokenPath) bool { return a.sites[n] == site })
	switch state {
	case detect.Up:
		v.State = placement.Up
		if !a.home.returns.back(v.Object, now) {
			return // it flaps: voted up when its penalty is gone
		}
	case detect.Path:
		a.paths[node] = brokenPath{time.Now(), a.silence(c)}
		if a.ballot.own[v.Object].State != placement.Down {
			return
		}
		v.State, v.Cause = placement.Path, a.silence(c) // at least it is not down
		if !a.home.returns.back(v.Object, now) {
			return
		}
	case detect.Down:
		v.State, v.Cause, v.Hold = placement.Down, a.silence(c), a.doubts()
		if old := a.ballot.own[v.Object]; old.State == placement.Down {
			v.Cause = old.Cause // while it flaps, that it is down again is no news
		}
		a.home.returns.left(v.Object, now, a.home.halfLife)
	case detect.Left:
		v.State, v.Cause = placement.Unknown, "said goodbye"
	}
	a.vote(v)
}

// silence says which paths are silent since when.
func (a *Agent) silence(c *detect.Change) string {
	var b strings.Builder
	for i, s := range c.Silent {
		if i > 0 {
			b.WriteString(", ")
		}
		by := "direct"
		if s.Via > 0 {
			by = "by " + a.sites[uint16(s.Via-1)]
		}
		fmt.Fprintf(&b, "%s for %d ms", by, max(c.At-s.Since, 0).Milliseconds())
	}
	if b.Len() == 0 {
		return fmt.Sprintf("no beat for %d ms", (c.At - c.Heard).Milliseconds())
	}
	return "no beat " + b.String()
}

// hold notes that the detector begins or ends to doubt what it hears.
func (a *Agent) hold(on bool, now time.Time) {
	a.cfg.Log.Info("this vantage doubts itself while most sites are silent at once", "hold", on)
	if on {
		a.home.heldAt = now
		return
	}
	a.judge(now)
	a.home.heldAt = time.Time{}
}

// mark holds this vantage's votes on other sites while it doubts itself: they then
// count for nobody. Those that take something away are marked at once, the others
// when the doubt has lasted: an old word that a site is up must not weigh against
// those who see it dead, and a pause of a moment is not worth a vote.
func (a *Agent) mark(now time.Time) {
	on := a.doubts()
	switch {
	case !on:
		a.home.doubtAt = time.Time{}
	case a.home.doubtAt.IsZero():
		a.home.doubtAt = now
	}
	lasting := on && now.Sub(a.home.doubtAt) >= doubtLasts
	for _, v := range a.ballot.votes() {
		held := on && (v.State == placement.Down || lasting)
		if v.Object.Site != a.cfg.Site && v.Hold != held {
			v.Hold = held
			a.vote(v)
		}
	}
}

// comeBack votes those up whose penalty is gone.
func (a *Agent) comeBack(now time.Time) {
	ids := make([]placement.ClusterID, 0, len(a.sites))
	for _, site := range a.sites {
		ids = append(ids, placement.SiteID(site))
	}
	slices.SortFunc(ids, placement.ClusterID.Compare)
	for _, id := range slices.Compact(a.home.returns.due(ids, now)) {
		a.vote(placement.Vote{Object: id, State: placement.Up, Hold: a.ballot.held(id)})
	}
}
