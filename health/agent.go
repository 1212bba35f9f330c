package health

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/health/detect"
	"rhumb/placement"
)

// Peer is a node of another site, whose beats are heard and who hears ours.
type Peer struct {
	Site   string
	NodeID uint16 // unique in the fleet
	Addr   netip.AddrPort
	// Keys of the pair of sites, the first is used to send; two at a roll-over,
	// none for a peer that cannot be believed, which is left out.
	Keys [][32]byte
}

// Config is what an Agent needs.
type Config struct {
	Node, Site, Domain string
	NodeID             uint16
	// Incarnation rises at each start: the greater of a counter on disk and
	// the seconds of the Unix time.
	Incarnation uint32
	// Beat is the socket for beats; nil where there are no other sites. The
	// agent closes it.
	Beat     net.PacketConn
	Interval time.Duration // of beats; 300 ms by default
	// Sink gets every change of this vantage's own votes, Ended every vote that
	// is no longer cast. Both are called from one goroutine and must not block.
	Sink  func(placement.Vote)
	Ended func(placement.ClusterID)
	// Stream gets own and heard votes; may be nil.
	Stream *Stream
	// Plan returns the plan revision in force, for the beats; may be nil. It is
	// called from several goroutines.
	Plan   func() int64
	Log    *slog.Logger
	Metric prometheus.Registerer // may be nil
}

// The times of an agent.
const (
	defaultInterval = 300 * time.Millisecond
	voteEvery       = 3 * time.Second  // votes on beats are repeated this often
	silentAfter     = 10 * time.Second // a vantage's votes end with its beats
	looksAtOnce     = 16               // a check must not become the load that it measures
)

// Agent is the health role of one node. All its state belongs to the goroutine
// of Run; Set alone may be called from another.
type Agent struct {
	cfg      Config
	m        metrics
	talk     talker
	ballot   ballot
	clusters map[placement.ClusterID]*cluster
	detector *detect.Detector
	peers    []Peer
	byNode   map[uint16]int // NodeID → index into peers
	marks    map[uint16]*detect.Marks
	judgedAt time.Time      // when the detector was last asked
	update   chan inputs
}

// inputs are what changes while the agent runs.
type inputs struct {
	peers  []Peer
	probes []Probe
}

// New returns an agent that looks at nothing; Set gives it work, Run starts it.
func New(cfg Config) *Agent {
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	a := &Agent{cfg: cfg, m: newMetrics(cfg.Metric),
		ballot:   newBallot(cfg),
		clusters: make(map[placement.ClusterID]*cluster),
		detector: detect.New(detect.Defaults(cfg.Interval)),
		byNode:   make(map[uint16]int),
		marks:    make(map[uint16]*detect.Marks),
		update:   make(chan inputs, 1)}
	a.talk = talker{conn: cfg.Beat, plan: cfg.Plan, m: &a.m, interval: cfg.Interval,
		header: detect.Beat{Node: cfg.NodeID, Incarnation: cfg.Incarnation, Interval: cfg.Interval}}
	return a
}

// Set gives the agent its peers and probes; the newest call wins. It never blocks.
func (a *Agent) Set(peers []Peer, probes []Probe) {
	in := inputs{peers, probes}
	for {
		select {
		case a.update <- in:
			return
		default:
		}
		select {
		case <-a.update: // an older one that nobody has taken yet
		default:
		}
	}
}

// Run looks, listens and votes until the context ends; then it says goodbye to
// its peers, so that they see a leave and not a failure. Every goroutine that it
// starts has ended when it returns.
func (a *Agent) Run(ctx context.Context) error {
	results := make(chan look)
	sched := newScheduler(ctx, results, looksAtOnce, ProberOf)
	defer sched.wait()
	a.talk.started = time.Now()
	var beats chan datagram
	var wg sync.WaitGroup
	if a.cfg.Beat != nil {
		defer a.cfg.Beat.Close()
		stop := context.AfterFunc(ctx, func() { a.cfg.Beat.SetReadDeadline(time.Now()) })
		defer stop()
		beats = make(chan datagram, 256)
		wg.Go(func() { receive(ctx, a.cfg.Beat, beats) })
		wg.Go(func() { a.talk.run(ctx) })
	}
	a.vote(placement.Vote{Object: placement.SiteID(a.cfg.Site), State: placement.Up})
	a.loop(ctx, sched, results, beats)
	wg.Wait() // a beat behind the goodbye would take it back
	a.talk.send(detect.KindLeave, nil)
	return nil
}

func (a *Agent) loop(ctx context.Context, sched *scheduler, results <-chan look, beats <-chan datagram) {
	judge := time.NewTicker(max(a.cfg.Interval/4, 5*time.Millisecond))
	defer judge.Stop()
	votes := time.NewTicker(voteEvery)
	defer votes.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case in := <-a.update:
			a.take(sched, in)
		case l := <-results:
			a.looked(l)
		case d := <-beats:
			a.hear(d)
		case <-judge.C:
			a.drain(beats)
			a.judge(time.Now())
		case <-votes.C:
			a.sendVotes(a.ballot.votes()) // again: a peer that has just started knows none
		}
	}
}

// drain takes the beats that wait. A loop that was late must hear first and
// judge then, or it would find peers silent whose beats lie in its own queue.
func (a *Agent) drain(beats <-chan datagram) {
	for range cap(beats) {
		select {
		case d := <-beats:
			a.hear(d)
		default:
			return
		}
	}
}

// take makes new inputs effective; what is still watched keeps its history.
func (a *Agent) take(sched *scheduler, in inputs) {
	a.setPeers(in.peers)
	var targets []Target
	next := make(map[placement.ClusterID]*cluster, len(in.probes))
	for _, p := range in.probes {
		targets = append(targets, p.Targets...)
		c := newCluster(p)
		c.inherit(a.clusters[p.Object])
		next[p.Object] = c
	}
	a.clusters = next
	sched.set(targets)
	a.endVotes()
	for _, p := range in.probes {
		a.cast(next[p.Object])
	}
}

// setPeers replaces the peers. One without a key could neither be believed nor
// spoken to; it is left out.
func (a *Agent) setPeers(peers []Peer) {
	a.peers = nil
	clear(a.byNode)
	ids := make([]uint32, 0, len(peers))
	spoke := make(map[string]time.Time)
	for _, p := range peers {
		if len(p.Keys) == 0 {
			continue
		}
		a.byNode[p.NodeID] = len(a.peers)
		a.peers = append(a.peers, p)
		ids = append(ids, uint32(p.NodeID))
		if a.marks[p.NodeID] == nil {
			a.marks[p.NodeID] = &detect.Marks{}
		}
		spoke[p.Site] = a.ballot.spoke[p.Site]
	}
	a.ballot.spoke = spoke
	a.detector.Watch(ids)
	a.talk.setPeers(a.peers)
}

// endVotes takes back votes on what is no longer looked at.
func (a *Agent) endVotes() {
	watched := map[placement.ClusterID]bool{placement.SiteID(a.cfg.Site): true}
	for id := range a.clusters {
		watched[id] = true
	}
	for _, p := range a.peers {
		watched[placement.SiteID(p.Site)] = true
	}
	for _, v := range a.ballot.votes() {
		if watched[v.Object] {
			continue
		}
		last := a.ballot.end(v.Object)
		if a.cfg.Ended != nil {
			a.cfg.Ended(v.Object)
		}
		if a.cfg.Stream != nil {
			a.cfg.Stream.End(last)
		}
		a.sendVotes([]placement.Vote{last})
	}
}

func (a *Agent) looked(l look) {
	a.m.looked(a.cfg.Site, l)
	c := a.clusters[l.target.Object]
	if c != nil && c.feed(l.target.Address, l.result, l.result.At) {
		a.cast(c)
	}
}

// cast votes what is known of a cluster; of an unknown one there is nothing to say.
func (a *Agent) cast(c *cluster) {
	state, cause := c.state()
	if state == placement.Unknown {
		return
	}
	v := placement.Vote{Object: c.object, State: state, Cause: cause}
	if state == placement.Down {
		v.Fault = c.fault
	}
	a.vote(v)
}

// vote casts a vote and tells everybody who hears votes, if it is news.
func (a *Agent) vote(v placement.Vote) {
	before := a.ballot.own[v.Object].State
	v, changed := a.ballot.cast(v, time.Now())
	if !changed {
		return
	}
	if before != v.State {
		a.m.transitions.WithLabelValues(v.Object.Site, before.String(), v.State.String()).Inc()
		a.cfg.Log.Info("vote", "object", v.Object.String(), "from", before.String(), "to", v.State.String(), "fault", string(v.Fault), "cause", v.Cause)
	}
	a.cfg.Sink(v)
	if a.cfg.Stream != nil {
		a.cfg.Stream.Vote(v)
	}
	a.sendVotes([]placement.Vote{v})
}

func (a *Agent) sendVotes(votes []placement.Vote) {
	const room = detect.MaxDatagram - 64 // header, tag, and some to spare
	a.talk.sendVotes(packVotes(votes, room))
}

// hear takes a datagram of a peer.
func (a *Agent) hear(d datagram) {
	p, b, err := a.open(d)
	if err != nil {
		a.m.beats.WithLabelValues("unknown", "in", "refused").Inc()
		return
	}
	fresh, restarted := a.marks[p.NodeID].Take(&b)
	if !fresh { // a copy, or one that was overtaken: it proves nothing, and its votes are stale
		a.m.beats.WithLabelValues(p.Site, "in", "old").Inc()
		return
	}
	at := d.at.Sub(a.talk.started)
	if restarted {
		a.detector.Restart(uint32(p.NodeID))
	}
	switch b.Kind {
	case detect.KindBeat:
		a.detector.Hear(uint32(p.NodeID), 0, uint64(b.Seq), at)
	case detect.KindLeave:
		a.detector.Leave(uint32(p.NodeID), uint64(b.Seq), at)
	}
	a.m.beats.WithLabelValues(p.Site, "in", "ok").Inc()
	a.ballot.spoke[p.Site] = d.at
	a.judged(a.detector.Changes())
	if b.Kind == detect.KindVotes {
		a.hearVotes(p, b.Body)
	}
}

// open finds the sender of a datagram and checks it against the keys of that pair.
func (a *Agent) open(d datagram) (Peer, detect.Beat, error) {
	id, err := detect.Sender(d.data)
	if err != nil {
		return Peer{}, detect.Beat{}, err
	}
	i, ok := a.byNode[id]
	if !ok {
		return Peer{}, detect.Beat{}, fmt.Errorf("no peer with node id %d", id)
	}
	b, err := detect.Open(d.data, a.peers[i].Keys...)
	return a.peers[i], b, err
}

func (a *Agent) hearVotes(p Peer, body []byte) {
	votes, err := unpackVotes(body)
	if err != nil {
		a.m.beats.WithLabelValues(p.Site, "in", "bad_votes").Inc()
	}
	for _, v := range votes {
		// A site speaks for its own vantages only. A repeated vote goes to the
		// stream again, whose readers forget what is not repeated.
		if v.Site == p.Site && a.ballot.hear(v) && a.cfg.Stream != nil {
			a.cfg.Stream.Vote(v)
		}
	}
}

// judge asks the detector what is due, and ends the votes of silent vantages.
func (a *Agent) judge(now time.Time) {
	held := a.detector.Held()
	if held {
		a.m.hold.Add(now.Sub(a.judgedAt).Seconds())
	}
	a.judgedAt = now
	a.detector.Due(now.Sub(a.talk.started))
	a.judged(a.detector.Changes())
	if held != a.detector.Held() {
		a.hold(a.detector.Held())
	}
	for _, key := range a.ballot.silence(now.Add(-silentAfter)) {
		if a.cfg.Stream != nil {
			a.cfg.Stream.Drop(key.object, key.vantage)
		}
	}
}

// judged turns what the detector saw into votes on sites. A site that said
// goodbye (an upgrade, a restart) is not down before it has stayed away for long.
func (a *Agent) judged(changes []detect.Change) {
	for _, c := range changes {
		i, ok := a.byNode[uint16(c.Subject)]
		if !ok {
			continue
		}
		v := placement.Vote{Object: placement.SiteID(a.peers[i].Site)}
		switch c.State {
		case detect.Up:
			v.State = placement.Up
		case detect.Down:
			v.State, v.Cause = placement.Down, fmt.Sprintf("no beat for %d ms", (c.At - c.Heard).Milliseconds())
			v.Hold = a.detector.Held()
		case detect.Left:
			v.State, v.Cause = placement.Unknown, "said goodbye"
		}
		a.vote(v)
	}
}

// hold says so when this vantage begins or ends to doubt itself: its down votes
// on other sites then count for nobody. Its other votes take nothing away, so
// they stay as they are.
func (a *Agent) hold(on bool) {
	a.cfg.Log.Info("this vantage doubts itself while most sites are silent at once", "hold", on)
	for _, v := range a.ballot.votes() {
		if v.Object.Site != a.cfg.Site && v.State == placement.Down {
			v.Hold = on
			a.vote(v)
		}
	}
}
