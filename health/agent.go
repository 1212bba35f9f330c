package health

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
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
	// Watches are the nodes which it watches itself (Watching); nil: everybody.
	Watches []uint16
	// HalfLife of the penalty for departures of its site; 0 means the default.
	HalfLife time.Duration
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
	// ScriptDir is where the programs lie that checks of kind script may run;
	// empty: they may run none.
	ScriptDir string
	// Away tells that an address which this host announces is not on it just now, as
	// during a drain: whoever looks would see another site's servers. It may be nil, and is
	// called from several goroutines.
	Away func(netip.Addr) bool
	// Stream gets own and heard votes; may be nil.
	Stream *Stream
	// Hearing gets what the detector hears of the other sites, whenever that changes; may
	// be nil. It is called from the goroutine of Run and must not block.
	Hearing func([]placement.Hearing)
	// Units yields what becomes of the other units of this machine; may be nil.
	Units <-chan UnitEvent
	// Misses returns which vantage another one of this site says, in the store, to hear no
	// more; may be nil.
	Misses func(vantage string) string
	// Machines hears the other machines of this site; may be nil. The agent runs it.
	Machines *Machines
	// Fit looks at this machine, each second (Fitness.Look); nil: nobody does.
	Fit func() error
	// Plan returns the plan revision in force, for the beats; may be nil. It is
	// called from several goroutines.
	Plan   func() int64
	Log    *slog.Logger
	Metric prometheus.Registerer // may be nil
}

// The times of an agent.
const (
	defaultInterval = 300 * time.Millisecond
	voteEvery       = 3 * time.Second // votes on beats are repeated this often
	judgeEvery      = 100 * time.Millisecond
	silentAfter     = 10 * time.Second // a vantage's votes end with its beats
	doubtLasts      = time.Second      // from here on every vote on others is held
	looksAtOnce     = 16               // a check must not become the load that it measures
)

// Agent is the health role of one node. Its state belongs to the goroutine of Run;
// Set, SetServices, Meet and Report may be called from others.
type Agent struct {
	cfg      Config
	m        metrics
	link     *detect.Link
	ballot   ballot
	clusters map[placement.ClusterID]*cluster
	sites    map[uint16]string           // of the peers, by NodeID
	states   map[uint16]detect.State     // of the peers
	paths    map[uint16]brokenPath       // which may be told soon
	told     map[placement.ClusterID]int // how often a vote was told since it was cast
	votes    int                         // how often votes were repeated
	home     home
	update   chan inputs
	ledger   ledger
	met      chan Encounter
	demand   demand
	services atomic.Pointer[[]ServiceUse]
	ended    atomic.Pointer[[]netip.AddrPort]
	report   atomic.Pointer[placement.HealthStats]
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
		ballot:   newBallot(cfg),
		clusters: make(map[placement.ClusterID]*cluster),
		sites:    make(map[uint16]string),
		states:   make(map[uint16]detect.State),
		paths:    make(map[uint16]brokenPath),
		told:     make(map[placement.ClusterID]int),
		home:     home{returns: make(returns), ended: make(map[string][]netip.AddrPort)},
		update:   make(chan inputs, 1),
		met:      make(chan Encounter, 64),
		demand:   newDemand()}
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
// starts has ended when it returns, but for a look at a disk that hangs.
func (a *Agent) Run(ctx context.Context) error {
	if a.cfg.Beat != nil {
		defer a.cfg.Beat.Close()
	}
	link, err := detect.NewLink(detect.LinkConfig{Node: a.cfg.NodeID, Incarnation: a.cfg.Incarnation, Times: detect.Defaults(a.cfg.Interval),
		Conn: a.cfg.Beat, Plan: a.cfg.Plan, Late: func(d time.Duration) { a.m.lateness.Observe(d.Seconds()) }})
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	a.link = link
	a.m.watch(link)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan look)
	sched := newScheduler(ctx, results, looksAtOnce, whereServed(proberOf(a.cfg.ScriptDir), a.cfg.Away))
	defer sched.wait()
	beats := make(chan error, 1)
	go func() { beats <- link.Run(ctx) }()
	heard := make(chan struct{})
	go func() { defer close(heard); a.hearMachines(ctx) }()
	defer func() { <-heard }()
	a.vote(placement.Vote{Object: placement.SiteID(a.cfg.Site), State: placement.Up})
	a.watchHome(ctx)
	ended := a.loop(ctx, sched, results, beats)
	cancel()
	if !ended {
		err = <-beats
	}
	return err
}

// loop runs until the context ends, or the link does by an error, which it returns.
func (a *Agent) loop(ctx context.Context, sched *scheduler, results <-chan look, beats chan error) (ended bool) {
	judge := time.NewTicker(max(a.cfg.Interval, judgeEvery))
	defer judge.Stop()
	votes := time.NewTicker(voteEvery)
	defer votes.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case in := <-a.update:
			a.take(sched, in)
		case l := <-results:
			a.looked(l)
			a.account(time.Now())
		case e := <-a.met:
			if id, bad := a.meet(e, time.Now()); bad {
				sched.lookNow(id)
			}
		case e := <-a.demand.in:
			a.ask(e, sched.lookAt, time.Now())
		case <-a.link.Bell():
			a.heard(func() { a.checkNow(sched) })
		case e := <-a.cfg.Units:
			a.unit(e)
		case <-a.cfg.Machines.Bell():
			for _, e := range a.cfg.Machines.Take() {
				a.machine(e, func(c *cluster) { sched.lookNow(c.object) })
			}
		case err := <-a.home.looks:
			a.fit(err, time.Now())
		case <-judge.C:
			a.judge(time.Now())
		case <-votes.C:
			a.repeat()
			a.account(time.Now())
		}
	}
}

// checkNow looks at every cluster without waiting for its turn: others say that this
// site is down, and what they see may be seen here as well, with its cause.
func (a *Agent) checkNow(sched *scheduler) {
	a.cfg.Log.Info("another site says that this one is down; its clusters are looked at now")
	for _, id := range sortedIDs(a.clusters) {
		sched.lookNow(id)
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
	a.m.certificate.Reset() // of checks that are gone
	sched.set(targets)
	a.endVotes()
	for _, p := range in.probes {
		a.cast(next[p.Object])
	}
}

// endVotes takes back votes on what is no longer looked at.
func (a *Agent) endVotes() {
	watched := map[placement.ClusterID]bool{placement.SiteID(a.cfg.Site): true}
	for id := range a.clusters {
		watched[id] = true
	}
	for _, site := range a.sites {
		watched[placement.SiteID(site)] = true
	}
	for _, v := range a.ballot.votes() {
		if watched[v.Object] {
			continue
		}
		last := a.ballot.end(v.Object)
		delete(a.told, v.Object)
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
	if c == nil {
		return
	}
	if c.feed(l.target.Address, l.target.Check.Name, l.result) || c.lost() {
		a.cast(c)
	}
	a.answer(lookID{l.target.Object, l.target.Address, l.target.Check.Name}, c, l.result.At.Add(-l.result.Took))
}

// cast votes what is known of a cluster; of an unknown one there is nothing to say.
// What was said before a change of its checks stands until something is known by the
// new ones, or until it is plain that they will not see.
func (a *Agent) cast(c *cluster) {
	state, cause := c.state()
	if state == placement.Unknown {
		if before, voted := a.ballot.own[c.object]; voted && before.State != placement.Unknown && c.lost() {
			a.vote(placement.Vote{Object: c.object, State: placement.Unknown, Cause: "its checks cannot see"})
		}
		return
	}
	v := placement.Vote{Object: c.object, State: state, Cause: cause}
	if state == placement.Down {
		v.Fault, v.Second = c.fault, c.second(time.Now())
		if c.ended() {
			v.Fault = placement.LocalFault // whatever the check proves: the process was ours
		}
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
		a.cfg.Log.Info("vote", "object", v.Object.String(), "from", before.String(), "to", v.State.String(), "fault", string(v.Fault), "hold", v.Hold, "cause", v.Cause)
	}
	a.cfg.Sink(v)
	a.told[v.Object] = 0
	if a.cfg.Stream != nil {
		a.cfg.Stream.Vote(v)
	}
	a.sendVotes([]placement.Vote{v})
}
