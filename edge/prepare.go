package edge

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Suspect is a site that may be lost, and since when: no verdict. Most suspicions
// pass.
type Suspect struct {
	Site  string
	Since time.Time
}

// Preparation tells what is made ready for the sessions of a suspected site.
type Preparation struct {
	Site  string
	Since time.Time
	// Sessions would go on here, Ready of them without a look at disk or origin. Observed
	// are of services that only count what they would do.
	Sessions, Ready, Observed int
	// Result is PrepareCleared, PrepareVerdict, or "" while the suspicion stands.
	Result string
}

// How suspicions end.
const (
	PrepareCleared = "cleared" // the site is heard: nothing was done and nothing is left
	PrepareVerdict = "verdict" // the site is down: its sessions are revived
)

// preparation makes ready what the sessions of suspected sites would need here, so
// that their revival waits for no disk and no origin. It changes nothing for
// anybody: no packet is held, no record claimed, no client spoken to. Safe for
// concurrent use.
type preparation struct {
	a        *Agent
	suspects atomic.Pointer[[]Suspect]
	woken    chan struct{} // suspects was replaced, or a verdict fell
	rate     *bucket       // of blocks that are read
	room     int           // of the cache, for blocks that nobody has asked for
	// told is called by Run's goroutines with each thing worth telling; nil: nobody.
	told func(Preparation)

	mu     sync.Mutex
	drills map[string]*drill // by suspected site; one that has ended stays until it is cleared
	blocks int               // read for them
}

// Bounds of preparations.
const (
	prepareRate  = 400     // blocks a second, all sites together
	prepareSpool = 1 << 30 // bytes copied from origins for one suspicion
	prepareFetch = 8       // copies under way at once, for one site
	// The records are looked through now and then: it takes a tenth of a second for
	// 200,000.
	prepareEvery = 2 * time.Second
	prepareSoon  = 100 * time.Millisecond // while copies are under way
)

func newPreparation(a *Agent) *preparation {
	p := &preparation{a: a, woken: make(chan struct{}, 1), rate: newBucket(prepareRate), room: max(a.cache.Room()/2, 1),
		told: a.cfg.OnPrepare, drills: map[string]*drill{}}
	p.suspects.Store(&[]Suspect{})
	return p
}

// SetSuspects tells which sites may be lost. What their sessions would need here, if
// this site is their Backup, is made ready; no session moves, and when a site is
// suspected no more, what was begun is given up. It does not block.
func (a *Agent) SetSuspects(list []Suspect) {
	list = slices.DeleteFunc(slices.Clone(list), func(s Suspect) bool { return s.Site == a.cfg.Site })
	a.prep.suspects.Store(&list)
	a.prep.wake()
}

// Preparations lists what is being made ready, by site.
func (a *Agent) Preparations() []Preparation {
	p := a.prep
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Preparation, 0, len(p.drills))
	for _, d := range p.drills {
		out = append(out, d.seen)
	}
	slices.SortFunc(out, func(a, b Preparation) int { return strings.Compare(a.Site, b.Site) })
	return out
}

func (p *preparation) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// Run begins and ends drills until the context ends.
func (p *preparation) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.woken:
			p.follow(ctx)
		}
	}
}

// follow makes the drills those of the suspects.
func (p *preparation) follow(ctx context.Context) {
	want := *p.suspects.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	for site, d := range p.drills {
		if !slices.ContainsFunc(want, func(s Suspect) bool { return s.Site == site }) {
			d.end(PrepareCleared)
			delete(p.drills, site)
			p.a.m.prepare.forget(site)
		}
	}
	for _, s := range want {
		d := p.drills[s.Site]
		if d == nil {
			d = p.begin(ctx, s)
		}
		if p.a.isDown(s.Site) {
			d.end(PrepareVerdict)
		}
	}
}

// begin starts a drill. The caller holds mu.
func (p *preparation) begin(ctx context.Context, s Suspect) *drill {
	d := &drill{p: p, seen: Preparation{Site: s.Site, Since: s.Since}, results: map[objectOf]string{},
		read: map[blockKey]bool{}, copies: map[objectOf]*ahead{}}
	d.ctx, d.cancel = context.WithCancel(ctx)
	p.drills[s.Site] = d
	p.a.wg.Go(d.run)
	return d
}

// crowded reports whether the last places of this site are kept for sessions which may
// come of suspected sites. New connections take them all the same; a session that
// lives elsewhere and is offered can stay there.
func (p *preparation) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.drills) == 0 {
		return false
	}
	kept := 0
	for _, d := range p.drills {
		if d.seen.Result == "" {
			kept += d.seen.Sessions
		}
	}
	v := p.a.revival
	v.mu.Lock()
	kept += len(v.rounds)
	v.mu.Unlock()
	return p.a.tab.len()+kept >= p.a.limits.Sessions
}
