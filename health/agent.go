package health

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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
	// Keys of the pair of sites, the first is used to send; two at a roll-over.
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
	// Plan returns the plan revision in force, for the beats; may be nil.
	Plan   func() int64
	Log    *slog.Logger
	Metric prometheus.Registerer // may be nil
}

// The times of an agent.
const (
	defaultInterval = 300 * time.Millisecond
	voteEvery       = 3 * time.Second  // votes on beats are repeated this often
	silentAfter     = 10 * time.Second // a vantage's votes end with its beats
	looksAtOnce     = 16
)

// Agent is the health role of one node.
type Agent struct {
	cfg      Config
	m        metrics
	ballot   ballot
	clusters map[placement.ClusterID]*cluster
	detector *detect.Detector
	peers    []Peer
	byNode   map[uint16]int // NodeID → index into peers
	started  time.Time
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
	return &Agent{cfg: cfg, m: newMetrics(cfg.Metric),
		ballot: ballot{vantage: cfg.Node, site: cfg.Site, domain: cfg.Domain, incarnation: cfg.Incarnation,
			own: make(map[placement.ClusterID]placement.Vote), heard: make(map[heardKey]placement.Vote), spoke: make(map[string]time.Time)},
		clusters: make(map[placement.ClusterID]*cluster),
		detector: detect.New(detect.Defaults(cfg.Interval)),
		byNode:   make(map[uint16]int),
		update:   make(chan inputs, 1)}
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

// datagram is one read of the beat socket.
type datagram struct {
	from netip.AddrPort
	data []byte
	at   time.Time
}

// Run looks, listens and votes until the context ends; then it says goodbye to
// its peers, so that they see a leave and not a failure.
func (a *Agent) Run(ctx context.Context) error {
	results := make(chan look)
	sched := newScheduler(ctx, results, looksAtOnce)
	defer sched.wait()
	var beats <-chan datagram
	if a.cfg.Beat != nil {
		ch := make(chan datagram, 256)
		stop := context.AfterFunc(ctx, func() { a.cfg.Beat.SetReadDeadline(time.Now()) })
		defer stop()
		defer a.cfg.Beat.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			receive(ctx, a.cfg.Beat, ch)
		}()
		defer func() { <-done }()
		beats = ch
	}
	a.started = time.Now()
	a.vote(placement.Vote{Object: placement.SiteID(a.cfg.Site), State: placement.Up})
	return a.loop(ctx, sched, results, beats)
}

func (a *Agent) loop(ctx context.Context, sched *scheduler, results <-chan look, beats <-chan datagram) error {
	beat := time.NewTicker(a.cfg.Interval)
	defer beat.Stop()
	judge := time.NewTicker(max(a.cfg.Interval/4, 5*time.Millisecond))
	defer judge.Stop()
	votes := time.NewTicker(voteEvery)
	defer votes.Stop()
	for {
		select {
		case <-ctx.Done():
			a.sendAll(detect.KindLeave, nil)
			return nil
		case in := <-a.update:
			a.take(sched, in)
		case l := <-results:
			a.looked(l)
		case d := <-beats:
			a.hear(d)
		case at := <-beat.C:
			a.m.lateness.Observe(time.Since(at).Seconds())
			a.sendAll(detect.KindBeat, nil)
		case <-judge.C:
			a.judge(time.Now())
		case <-votes.C:
			a.repeat()
		}
	}
}

// take makes new inputs effective; what is still watched keeps its history.
func (a *Agent) take(sched *scheduler, in inputs) {
	a.peers = in.peers
	clear(a.byNode)
	ids := make([]uint16, 0, len(in.peers))
	for i, p := range in.peers {
		a.byNode[p.NodeID] = i
		ids = append(ids, p.NodeID)
	}
	a.detector.Watch(ids)
	var targets []Target
	next := make(map[placement.ClusterID]*cluster, len(in.probes))
	for _, p := range in.probes {
		targets = append(targets, p.Targets...)
		next[p.Object] = a.keep(p)
	}
	a.clusters = next
	sched.set(targets)
	a.endVotes()
}

// keep returns the cluster of a probe: the one it has, if its addresses and
// check are the same.
func (a *Agent) keep(p Probe) *cluster {
	fresh := newCluster(p)
	old := a.clusters[p.Object]
	if old == nil || len(old.addresses) != len(fresh.addresses) {
		return fresh
	}
	for i := range fresh.addresses {
		o, f := &old.addresses[i], &fresh.addresses[i]
		if o.addr != f.addr || o.damp.rise != f.damp.rise || o.damp.fall != f.damp.fall {
			return fresh
		}
	}
	old.fault = fresh.fault
	return old
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
		delete(a.ballot.own, v.Object)
		if a.cfg.Ended != nil {
			a.cfg.Ended(v.Object)
		}
		if a.cfg.Stream != nil {
			a.cfg.Stream.Drop(v.Object, a.cfg.Node)
		}
	}
}

func (a *Agent) looked(l look) {
	a.m.looked(a.cfg.Site, l)
	c := a.clusters[l.target.Object]
	if c == nil || !c.feed(l.target.Address, l.result, l.result.At) {
		return
	}
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

// hear takes a datagram of a peer.
func (a *Agent) hear(d datagram) {
	p, b, err := a.open(d)
	if err != nil {
		a.m.beats.WithLabelValues("unknown", "in", "refused").Inc()
		return
	}
	changes, fresh := a.detector.Hear(p.NodeID, b, d.at)
	result := "ok"
	if !fresh {
		result = "old"
	}
	a.m.beats.WithLabelValues(p.Site, "in", result).Inc()
	if fresh || b.Kind == detect.KindVotes {
		a.ballot.spoke[p.Site] = d.at
	}
	a.judged(changes)
	if b.Kind == detect.KindVotes {
		a.hearVotes(p, b.Body)
	}
}

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
		if v.Site != p.Site {
			continue // a site speaks for its own vantage only
		}
		a.ballot.hear(v)
		if a.cfg.Stream != nil {
			a.cfg.Stream.Vote(v)
		}
	}
}

// judge asks the detector what is due, and ends the votes of silent vantages.
func (a *Agent) judge(now time.Time) {
	held := a.detector.Held()
	a.judged(a.detector.Due(now))
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
		i, ok := a.byNode[c.Subject]
		if !ok {
			continue
		}
		v := placement.Vote{Object: placement.SiteID(a.peers[i].Site), Hold: a.detector.Held()}
		switch c.State {
		case detect.Up:
			v.State = placement.Up
		case detect.Down:
			v.State, v.Cause = placement.Down, fmt.Sprintf("no beat for %d ms", c.Silent.Milliseconds())
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
	a.cfg.Log.Debug("the observer doubts itself: most sites fell silent at once", "hold", on)
	for _, v := range a.ballot.votes() {
		if v.Object.Site != a.cfg.Site && v.State == placement.Down {
			v.Hold = on
			a.vote(v)
		}
	}
}

// repeat sends all own votes again: a peer that has just started knows none.
func (a *Agent) repeat() {
	if a.detector.Held() {
		a.m.hold.Add(voteEvery.Seconds())
	}
	a.sendVotes(a.ballot.votes())
}

func (a *Agent) sendVotes(votes []placement.Vote) {
	const room = detect.MaxDatagram - 64 // header, tag, and some to spare
	for _, body := range packVotes(votes, room) {
		a.sendAll(detect.KindVotes, body)
	}
}

// sendAll sends one datagram to every peer. A lost one is what beats are for, so
// errors are counted and no more.
func (a *Agent) sendAll(kind detect.Kind, body []byte) {
	if a.cfg.Beat == nil {
		return
	}
	b := detect.Beat{Kind: kind, Node: a.cfg.NodeID, Incarnation: a.cfg.Incarnation, Interval: a.cfg.Interval, Body: body,
		Seq: uint32(time.Since(a.started)/a.cfg.Interval) + 1}
	if a.cfg.Plan != nil {
		b.Plan = uint32(a.cfg.Plan())
	}
	for _, p := range a.peers {
		out, err := b.Seal(nil, &p.Keys[0])
		result := "ok"
		if err == nil {
			_, err = a.cfg.Beat.WriteTo(out, net.UDPAddrFromAddrPort(p.Addr))
		}
		if err != nil {
			result = "failed"
		}
		a.m.beats.WithLabelValues(p.Site, "out", result).Inc()
	}
}

// receive reads datagrams until the context ends. When the loop is behind, new
// ones are dropped: their successors say the same.
func receive(ctx context.Context, conn net.PacketConn, to chan<- datagram) {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			continue
		}
		d := datagram{data: append([]byte(nil), buf[:n]...), at: time.Now()}
		if u, ok := from.(*net.UDPAddr); ok {
			d.from = u.AddrPort()
		}
		select {
		case to <- d:
		case <-ctx.Done():
		}
	}
}
