package forward

import (
	"net/netip"
	"slices"
	"time"
)

// The times and bounds of what this site believes about owners.
const (
	// hintLife is how long an owner is believed after it said "mine".
	hintLife = 10 * time.Second
	// renewAfter is the age at which a flow in use is confirmed again, so
	// that a dead owner is noticed when the hint ends.
	renewAfter = 5 * time.Second
	// renewGap spaces the confirmations that go unanswered.
	renewGap = time.Second
	// nobodyLife is how long "nobody has it" is believed.
	nobodyLife = time.Second
	// movedLife is how long a site sends the packets of a session it gave
	// away after it, since the last of them.
	movedLife = 2 * time.Minute
	// holdLife ends a hold that its holder forgot; the kernel judges then.
	holdLife = 15 * time.Second
	// retryAsk is when an unanswered question is asked again.
	retryAsk = 60 * time.Millisecond
	// nearLife is how long a client network's last owner is asked first.
	nearLife = 10 * time.Minute
	// foreignEvery is the least time between two calls of OnForeign for one flow.
	foreignEvery = 250 * time.Millisecond

	// maxRecords bounds the table against scans from many addresses; above
	// it unknown strays are the kernel's.
	maxRecords = 1 << 18
	maxNear    = 1 << 16
	// maxHeldPackets bounds what waits of one flow: more than an initial
	// window of 10 segments (RFC 6928) and its repetition. maxHeldOctets
	// bounds what waits of all.
	maxHeldPackets = 64
	maxHeldOctets  = 32 << 20
)

// condition is what is believed of one flow.
type condition uint8

const (
	asking  condition = iota // sites are asked; its packets wait
	foreign                  // another site owns it
	nobody                   // all said no: the kernel's
	holding                  // a session of this flow is being restored here
)

// result says how a stray's owner was found; it labels rhumb_edge_strays_total.
type result string

const (
	byHint      result = "hint"
	byAnnounced result = "announced"
	byPair      result = "pair"
	byGroup     result = "group"
	byNeighbour result = "neighbour" // another edge of this site has it
	byOrder     result = "order"     // who likely has the record of a lost site's session was asked first
	byCID       result = "cid"
	byNobody    result = "nobody"
	overBudget  result = "over_budget"
	observed    result = "observed"
)

// deed is what the forwarder shall do.
type deed uint8

const (
	doTunnel   deed = iota // send packet to site
	doGiveBack             // give packet to the kernel
	doAsk                  // ask site about flow
	doForeign              // tell OnForeign: flow is site's, since since
	doHeld                 // tell OnHeld: packet is one of flow
)

// step is one thing to do, with what it needs. Which protocol its flow speaks
// says the table it comes from. The steps of one call are done
// in order, outside the lock, before the caller's packet buffer is used again.
type step struct {
	do     deed
	flow   Flow
	site   string    // of doTunnel, doAsk, doForeign
	packet []byte    // of doTunnel, doGiveBack, doHeld
	since  time.Time // of doForeign
}

// record is what is believed of one flow, and the packets that wait for it.
type record struct {
	is      condition
	owner   string
	moved   bool      // this site itself gave the session to owner
	watch   bool      // mode observe: named, never tunnelled
	claimed bool      // held for a session that is revived here
	since   time.Time // first stray
	until   time.Time // end of this belief
	asked   time.Time // last question sent
	told    time.Time // last call of OnForeign
	tally   tally
	waiting question
	packets [][]byte
	early   int // so many of packets came by tunnel
	passed  int // of those that came by tunnel since it moved, sent on
}

// question is one being asked: who hasn't answered, whom to ask next.
type question struct {
	open  []string // asked, silent so far
	later []string // to be asked when those of open can't help
	how   result
	paid  bool // it was counted among the questions to other sites
	keeper
}

// tally counts a flow's forwarded traffic.
type tally struct{ packets, bytes uint64 }

// near remembers which site owned a client network's last stray.
type near struct {
	site  string
	until time.Time
}

// owners is the table of foreign flows of one protocol: values in, steps out. It knows neither
// clocks nor sockets; one lock of its holder serialises all calls.
type owners struct {
	flows   map[Flow]*record
	asking  []Flow // in order of asking
	near    map[netip.Prefix]near
	held    int // octets that wait in all records
	heldNow int // packets that wait in all records
	proto   byte
	budget  bucket
	wait    time.Duration // how long the packets of an undecided flow wait
	// mourning is until when strays beyond the budget are lost, not given back.
	mourning time.Time
	nextDoor
	hooks
}

// hooks are the look-ups and counters of the holder. They run under its lock.
type hooks struct {
	peers func() []string // sites that may be asked, sorted
	// neighbours are those of them that are edges of this very site, sorted.
	neighbours func() []string
	announced  func(Flow) string         // owner by announcement, or ""
	pair       func(netip.Addr) string   // the client's previous site, or ""
	shadowed   func(Flow) bool           // this site could revive its session
	first      func(Flow) []string       // who likely has the record of its session, the best first; nil: nobody knows
	count      func(how result, n int)   // n strays were decided so
	retire     func(site string, f Flow) // site's announcement of f is stale
}

func newOwners(proto byte, h hooks, askRate float64, wait time.Duration) *owners {
	return &owners{
		proto:    proto,
		flows:    make(map[Flow]*record),
		near:     make(map[netip.Prefix]near),
		budget:   bucket{rate: askRate, left: askRate},
		wait:     wait,
		nextDoor: newNextDoor(askRate),
		hooks:    h,
	}
}

// packet judges one stray and appends what to do. p belongs to the caller; what
// must wait is copied.
func (o *owners) packet(now time.Time, f Flow, p []byte, watch bool, steps []step) []step {
	r := o.flows[f]
	if r == nil || !now.Before(r.until) && r.is != asking && r.is != holding {
		if r != nil {
			delete(o.flows, f)
		}
		return o.unknown(now, f, p, watch, steps)
	}
	r.watch = watch // the mode may have changed since
	switch r.is {
	case foreign:
		o.countOne(r, byHint)
		return o.toOwner(now, f, r, p, steps)
	case nobody:
		o.countOne(r, byNobody)
		return o.refuse(r, f, p, steps)
	}
	o.keep(r, p)
	if r.claimed {
		steps = append(steps, step{do: doHeld, flow: f, packet: p})
	}
	return steps
}

// unknown begins the search for a flow's owner: announcements first, then the
// site that likely has it, then all at once.
func (o *owners) unknown(now time.Time, f Flow, p []byte, watch bool, steps []step) []step {
	r := &record{since: now, watch: watch}
	// Without room nothing can be remembered: neither an answer nor that
	// one is awaited.
	if len(o.flows) >= maxRecords {
		o.countOne(r, overBudget)
		return o.refuse(r, f, p, steps)
	}
	if site := o.announced(f); site != "" {
		r.is, r.owner, r.until = foreign, site, now.Add(hintLife)
		o.flows[f] = r
		o.countOne(r, byAnnounced)
		// Announcements age. The question goes along with the packet,
		// so nothing waits if it was right.
		r.asked = now
		steps = append(steps, step{do: doAsk, flow: f, site: site})
		return o.toOwner(now, f, r, p, steps)
	}
	peers := o.present(now)
	if len(peers) == 0 {
		o.countOne(r, byNobody)
		return o.refuse(r, f, p, steps)
	}
	q := o.whom(now, f, peers)
	// What could be revived here was a session not long ago, and no scan.
	if !o.shadowed(f) && !o.afford(now, &q) {
		o.countOne(r, overBudget)
		if now.Before(o.mourning) || len(o.adjacent()) > 0 {
			return steps
		}
		return o.refuse(r, f, p, steps)
	}
	r.is, r.asked, r.until = asking, now, now.Add(o.wait)
	r.waiting = q
	o.flows[f] = r
	o.asking = append(o.asking, f)
	o.keep(r, p)
	return askAll(steps, f, r.waiting.open)
}

// whom plans a question: the likely owner alone if there is one, else all; the other
// edges of this site in any case, since their answer is there at once.
func (o *owners) whom(now time.Time, f Flow, peers []string) question {
	// The routing's word goes before our own memory of it.
	likely := o.pair(f.Client.Addr())
	if n, ok := o.near[network(f.Client.Addr())]; likely == "" && ok && now.Before(n.until) {
		likely = n.site
	}
	q := question{how: byGroup}
	adjacent, first := o.adjacent(), o.keepers(now, f)
	for _, site := range peers {
		if site == likely || slices.Contains(adjacent, site) || slices.Contains(first, site) {
			q.open = append(q.open, site)
		} else {
			q.later = append(q.later, site)
		}
	}
	switch {
	case len(first) > 0:
		q.how = byOrder
	case slices.Contains(q.open, likely):
		q.how = byPair
	}
	if len(q.open) == 0 {
		q.open, q.later = q.later, nil
	}
	return q
}

// routed handles a packet which names its owner itself: nobody is asked, and
// what was believed of its flow doesn't count.
func (o *owners) routed(now time.Time, f Flow, site string, p []byte, watch bool, steps []step) []step {
	r := o.flows[f]
	if r == nil {
		r = &record{since: now}
		if len(o.flows) < maxRecords { // else sent, and not remembered
			o.flows[f] = r
		}
	}
	if r.is == asking {
		o.asking = without(o.asking, f)
	}
	r.is, r.waiting = foreign, question{}
	for _, waiting := range o.drain(r) {
		steps = append(steps, step{do: doTunnel, flow: f, site: site, packet: waiting})
	}
	r.owner, r.watch, r.asked, r.until = site, watch, now, now.Add(hintLife)
	o.countOne(r, byCID)
	return o.toOwner(now, f, r, p, steps)
}

// toOwner sends a packet of a foreign flow on its way, and asks the owner from
// time to time whether it still is.
func (o *owners) toOwner(now time.Time, f Flow, r *record, p []byte, steps []step) []step {
	if r.moved {
		r.until = now.Add(movedLife)
	} else if r.until.Sub(now) < hintLife-renewAfter && now.Sub(r.asked) >= renewGap {
		r.asked = now
		steps = append(steps, step{do: doAsk, flow: f, site: r.owner})
	}
	r.tally.packets++
	r.tally.bytes += uint64(len(p))
	if r.watch {
		return steps // the kernel has the packet already
	}
	if now.Sub(r.told) >= foreignEvery {
		r.told = now
		steps = append(steps, step{do: doForeign, flow: f, site: r.owner, since: r.since})
	}
	return append(steps, step{do: doTunnel, flow: f, site: r.owner, packet: p})
}

// refuse gives a packet back, unless the kernel has it already.
func (o *owners) refuse(r *record, f Flow, p []byte, steps []step) []step {
	if r.watch {
		return steps
	}
	return append(steps, step{do: doGiveBack, flow: f, packet: p})
}

// remember keeps which site had a client of this network. Routers spread the flows of a
// network over the edges of one site: of these nothing is to be learnt.
func (o *owners) remember(now time.Time, f Flow, site string) {
	if slices.Contains(o.adjacent(), site) {
		return
	}
	net := network(f.Client.Addr())
	if _, known := o.near[net]; known || len(o.near) < maxNear {
		o.near[net] = near{site: site, until: now.Add(nearLife)}
	}
}

// countOne counts a stray by how its owner was found; in mode observe only
// that it was.
func (o *owners) countOne(r *record, how result) {
	if r.watch && (how == byHint || how == byAnnounced || how == byPair || how == byGroup || how == byOrder || how == byNeighbour || how == byCID) {
		how = observed
	}
	o.count(how, 1)
}

// network is what routing moves as one: a /24 or a /48.
func network(client netip.Addr) netip.Prefix {
	bits := 24
	if client.Is6() {
		bits = 48
	}
	p, _ := client.Prefix(bits) // fails for invalid addresses only
	return p
}

// askAll appends a question to each site.
func askAll(steps []step, f Flow, sites []string) []step {
	for _, site := range sites {
		steps = append(steps, step{do: doAsk, flow: f, site: site})
	}
	return steps
}

// without removes a flow from a list in order.
func without(list []Flow, f Flow) []Flow {
	if i := slices.Index(list, f); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
