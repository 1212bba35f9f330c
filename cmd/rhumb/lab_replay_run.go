package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// replayLine is what the lab says while a replay runs: a step, or with a Lane a
// thing watched and its new state.
type replayLine struct {
	At   time.Time `json:"at"`
	Lane string    `json:"lane,omitempty"`
	// Kind of a step: then (what happened), here (what is done in the lab), do
	// (at this moment), see, mark (the blow), end (the verdict).
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
	// Aside marks what is seen while something is prepared or undone: drawn, not told.
	Aside bool `json:"aside,omitempty"`
}

// replayRun is one replay under way, inside the lab.
type replayRun struct {
	w     *world
	tale  *tale
	naive bool
	// watch is the least time watched after the blow.
	watch time.Duration
	fleet labFleet
	// before is the fleet as it was found, and as it is left.
	before *placement.Fleet
	// changed is set once the fleet is not as it was.
	changed bool
	look    *onlooker
	say     func(replayLine)
	// aside is set while the lab is prepared or put back.
	aside atomic.Bool
}

// see passes on what the onlooker says.
func (r *replayRun) see(l replayLine) {
	l.Aside = r.aside.Load()
	r.say(l)
}

// replay is the control socket's verb: it plays one tale and undoes it. One at a
// time, in a lab where nothing else is broken.
func (c *labControl) replay(ctx context.Context, call *netlab.Call) (int, error) {
	t := findTale(call.Args["name"])
	if t == nil {
		return exitUsage, fmt.Errorf("lab: there is no replay %q", call.Args["name"])
	}
	if !c.replaying.TryLock() {
		return exitRefused, errors.New("lab: another replay is running")
	}
	defer c.replaying.Unlock()
	if code, err := c.playable(); err != nil {
		return code, err
	}
	lines := newLineQueue()
	r := &replayRun{w: c.world, tale: t, naive: call.Args["naive"] != "", watch: t.watch, fleet: labFleet{c.world.dir}, say: lines.put}
	if text := call.Args["watch"]; text != "" {
		var err error
		if r.watch, err = time.ParseDuration(text); err != nil {
			return exitUsage, fmt.Errorf("lab: --watch: %w", err)
		}
	}
	sent := make(chan error, 1)
	go func() { sent <- lines.send(call.Reply) }()
	err := r.play(ctx, c.over)
	lines.close()
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if err != nil {
		return max(codeOf(err), exitFailed), err
	}
	return exitOK, nil
}

// playable says what keeps a replay from being played now.
func (c *labControl) playable() (int, error) {
	select {
	case <-c.ready:
	default:
		return exitUnhealthy, errors.New("lab: it is not ready yet; rhumb lab wait")
	}
	if len(c.world.foreign.routers) > 0 {
		return exitRefused, errors.New("lab: a stock router keeps no record of what it hears; start the lab without --router")
	}
	if len(c.world.net.Faults()) > 0 || c.world.fallen() != nil {
		return exitRefused, errors.New("lab: something is broken already; undo it first: rhumb lab heal")
	}
	return exitOK, nil
}

// step says something of a kind, now.
func (r *replayRun) step(kind, format string, args ...any) {
	r.say(replayLine{At: time.Now(), Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// The limits of a replay's parts.
const (
	calmWithin   = 90 * time.Second // until all is announced and answered
	goneWithin   = 25 * time.Second // a naive fleet's end
	quietFor     = 3 * time.Second  // routes which have stood still are done moving
	restWithin   = 40 * time.Second
	undoneWithin = 3 * time.Minute
	// outage is what clients must not have: when all sites change their routes at
	// once, routers hunt for the best one, and packets under way are lost for a
	// moment; a lost SYN is sent again after 1 s (RFC 6298, 2.1).
	outage = 2 * time.Second
)

// play runs the tale and undoes it. over closes when the lab ends: then there is
// nothing to undo.
func (r *replayRun) play(ctx context.Context, over <-chan struct{}) error {
	var err error
	if r.before, err = r.fleet.live(ctx); err != nil {
		return fmt.Errorf("lab: the fleet in force: %w", err)
	}
	staged, err := copyFleet(r.before)
	if err != nil {
		return err
	}
	if r.tale.stage != nil {
		r.tale.stage(staged)
	}
	prefixes := r.tale.judged(staged)
	r.look = newOnlooker(r.w, prefixes, r.tale.ask(staged), r.see)
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan error, 1)
	go func() { watched <- r.look.run(looking) }()
	err = r.act(ctx, staged)
	select {
	case <-over: // the lab ends, and everything with it
		stop()
		return errors.Join(err, <-watched)
	default:
	}
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoneWithin)
	defer cancel()
	go func() {
		select {
		case <-over:
			cancel()
		case <-undoing.Done():
		}
	}()
	undone := r.undo(undoing)
	stop()
	if watchErr := <-watched; err == nil && watchErr != nil {
		err = fmt.Errorf("lab: nobody watches: %w", watchErr)
	}
	return errors.Join(err, undone)
}

// act is everything up to the verdict.
func (r *replayRun) act(ctx context.Context, staged *placement.Fleet) error {
	for _, t := range r.tale.here {
		r.step("here", "%s", t)
	}
	r.aside.Store(true)
	if r.tale.stage != nil {
		if err := r.stage(ctx, staged); err != nil {
			return err
		}
	}
	if r.naive {
		r.step("do", "naive: at every site the unit of routes and health is replaced by one without the guard")
		if err := r.swap(ctx, true); err != nil {
			return err
		}
	}
	if err := r.await(ctx, calmWithin, r.look.calm); err != nil {
		return fmt.Errorf("lab: before the blow: %w", err)
	}
	r.aside.Store(false)
	r.step("see", "all is well: %s announced at %d sites, clients answered", counting(len(r.look.prefixes), "prefix", "prefixes"), len(labSites(r.w.topo)))
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	r.look.mark()
	if err := r.tale.blow(ctx, r, staged); err != nil {
		return err
	}
	if r.naive {
		return r.expectGone(ctx)
	}
	return r.expectKept(ctx)
}

// stage puts the tale's own services into the fleet, as an operator would.
func (r *replayRun) stage(ctx context.Context, staged *placement.Fleet) error {
	r.changed = true
	refused, err := r.fleet.apply(ctx, staged, "replay "+r.tale.name)
	if err != nil || len(refused) > 0 {
		return errors.Join(fmt.Errorf("lab: the fleet of the replay is refused: %v", refused), err)
	}
	return nil
}

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// await asks again and again until the answer is nil, or returns the last one.
func (r *replayRun) await(ctx context.Context, limit time.Duration, ok func() error) error {
	for began := time.Now(); ; {
		err := ok()
		if err == nil {
			return nil
		}
		if time.Since(began) > limit {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
		if e := sleep(ctx, 50*time.Millisecond); e != nil {
			return fmt.Errorf("%w, and until then: %w", e, err)
		}
	}
}

// swap puts the naive unit in the place of rhumb-bgp at every site, or back. What this
// one remembers of what it announced is forgotten.
func (r *replayRun) swap(ctx context.Context, naive bool) error {
	g, _ := errgroup.WithContext(ctx)
	for _, site := range labSites(r.w.topo) {
		args := r.w.unitArgs(site, "bgp")
		if naive {
			args = []string{"lab", "naive", "--config", r.w.dir.nodeFile(site)}
		}
		for _, p := range r.w.of(site, "bgp") {
			g.Go(func() error {
				return p.restart(args, func() error {
					return os.RemoveAll(filepath.Join(filepath.Dir(r.w.dir.nodeFile(site)), "data", heldFile))
				})
			})
		}
	}
	return g.Wait()
}

// swapGrace is how long a unit of routes may take to leave in order.
const swapGrace = 8 * time.Second

// restart ends the process in order, does something else, and starts it with another
// command line.
func (p *labProc) restart(args []string, meanwhile func() error) error {
	p.stop(swapGrace)
	if err := meanwhile(); err != nil {
		return err
	}
	p.mu.Lock()
	p.args = args
	p.mu.Unlock()
	return p.start()
}

// change puts a changed fleet in force: by the rules if they let it, and past them
// if they do not or if nobody asks them.
func (r *replayRun) change(ctx context.Context, what string, fleet *placement.Fleet) error {
	r.changed = true
	r.step("mark", "%s", what)
	if !r.naive {
		refused, err := r.fleet.apply(ctx, fleet, what)
		if err != nil {
			return err
		}
		if len(refused) == 0 {
			r.step("see", "rhumb apply takes it: no rule stands against it")
			return nil
		}
		for _, no := range refused {
			r.step("see", "rhumb apply refuses: rule %s, object %s, have %s, limit %s", no.Rule, no.Object, no.Have, no.Limit)
		}
		r.step("do", "it is written into the store all the same, past that rule, to see what the sites do")
	}
	return r.fleet.put(ctx, fleet)
}

// expectGone waits until a naive fleet is off the world.
func (r *replayRun) expectGone(ctx context.Context) error {
	err := r.await(ctx, goneWithin, r.look.gone)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.step("end", "NOT AS TOLD: the prefix should be gone: %v", err)
		return err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	r.step("end", "gone, as told: no site announces, no router has a way to one, no client is answered")
	return nil
}

// expectKept watches until routes stand still, and at least as long as the tale
// wants, and wants that at no moment too few sites announced.
func (r *replayRun) expectKept(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < r.watch || r.look.quiet() < quietFor; {
		if time.Since(began) > r.watch+restWithin {
			r.step("end", "NOT AS TOLD: routes do not come to rest")
			return errors.New("lab: routes do not come to rest")
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := r.look.kept(r.before); err != nil {
		r.step("end", "NOT AS TOLD: %v", err)
		return err
	}
	r.step("end", "kept, as told: %s", r.look.summary())
	return nil
}

// kept judges the worst that was seen since the blow.
func (x *onlooker) kept(fleet *placement.Fleet) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, p := range x.prefixes {
		slots := 1 // of a prefix that the tale brought along
		if known := fleet.Prefix(p); known != nil {
			slots = known.Slots
		}
		if need := len(labSites(x.w.topo)) - slots; x.worst.sites[p] < need {
			errs = append(errs, fmt.Errorf("%s was announced at %d sites for a while, want %d", p, x.worst.sites[p], need))
		}
	}
	if x.worst.routes > 0 {
		errs = append(errs, fmt.Errorf("%d prefixes had no route at some router for a while", x.worst.routes))
	}
	if x.worst.gap > outage {
		errs = append(errs, fmt.Errorf("a region got no answer for %.1f s, want at most %s", x.worst.gap.Seconds(), outage))
	}
	if x.worst.asked == 0 {
		errs = append(errs, errors.New("no client asked anything"))
	}
	return errors.Join(errs...)
}

// summary tells the worst of a fleet that was kept.
func (x *onlooker) summary() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	least := len(labSites(x.w.topo))
	for _, p := range x.prefixes {
		least = min(least, x.worst.sites[p])
	}
	text := fmt.Sprintf("never at fewer than %d of %d sites, every router had a route all the time, clients lost %d of %d answers",
		least, len(labSites(x.w.topo)), x.worst.failed, x.worst.asked)
	if x.worst.failed > 0 {
		text += fmt.Sprintf(" (%.1f s without any, at the longest)", x.worst.gap.Seconds())
	}
	return text
}

// undo leaves the lab as it was found.
func (r *replayRun) undo(ctx context.Context) error {
	r.step("do", "undone: faults healed, the fleet as it was")
	r.aside.Store(true)
	var errs []error
	errs = append(errs, r.w.heal("", ""))
	if r.changed {
		errs = append(errs, r.await(ctx, calmWithin, func() error { return r.fleet.put(ctx, r.before) }),
			r.await(ctx, calmWithin, func() error { return r.restored(ctx) }))
	}
	if r.naive || r.tale.brings {
		// A prefix that is named no more goes by Slots, one site and not the others; a
		// speaker that starts anew, and remembers nothing, has never heard of it.
		errs = append(errs, r.swap(ctx, false))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: undo: %w; start the lab anew", err)
	}
	check := &labCheck{world: r.w}
	defer check.close()
	began := time.Now()
	err := r.await(ctx, undoneWithin, func() error {
		_, err := check.routes(ctx)
		return errors.Join(err, r.leftovers(ctx, check))
	})
	if err != nil {
		return fmt.Errorf("lab: after the replay: %w", err)
	}
	r.step("see", "all is as before, %.1f s later", time.Since(began).Seconds())
	return nil
}

// leftovers names what is still said to be announced and is no prefix of the fleet as
// it was found: the word of a unit that could not sign off stands until its lease has
// run out.
func (r *replayRun) leftovers(ctx context.Context, check *labCheck) error {
	s, err := check.state(ctx)
	if err != nil {
		return err
	}
	for _, a := range s.Announced {
		if !slices.ContainsFunc(r.before.Prefixes, func(p placement.Prefix) bool { return p.Prefix == a.Prefix }) {
			return fmt.Errorf("%s still names %s, at step %v", a.Node, a.Prefix, a.Step)
		}
	}
	return nil
}

// restored tells whether the fleet as it was found is in force again. Routes alone do
// not show it: where the guard kept them, they never changed, and whoever reads the
// fleet too early takes the mistake for what the operator wants.
func (r *replayRun) restored(ctx context.Context) error {
	now, err := r.fleet.live(ctx)
	if err != nil {
		return err
	}
	want, errWant := json.Marshal(r.before)
	have, errHave := json.Marshal(now)
	if err := errors.Join(errWant, errHave); err != nil {
		return err
	}
	if !bytes.Equal(want, have) {
		return errors.New("the fleet as it was is not in force yet")
	}
	return nil
}

// lineQueue carries lines to the client without holding up those who watch.
type lineQueue struct {
	lines chan replayLine
	last  map[string]string // lane → state, owned by send
}

func newLineQueue() *lineQueue {
	return &lineQueue{lines: make(chan replayLine, 4096), last: map[string]string{}}
}

// put hands a line over. The queue is longer than any replay's; a client which does
// not read at all makes the lab wait rather than lose a step.
func (q *lineQueue) put(l replayLine) { q.lines <- l }

func (q *lineQueue) close() { close(q.lines) }

// send passes on steps, and of lanes what is new, until the queue is closed. A
// client that went away is told nothing more.
func (q *lineQueue) send(reply func(any) error) error {
	var failed error
	for l := range q.lines {
		if old, ok := q.last[l.Lane]; l.Lane != "" && ok && old == l.Text || failed != nil {
			continue
		}
		if l.Lane != "" {
			q.last[l.Lane] = l.Text
		}
		failed = reply(l)
	}
	return failed
}

// counting is "1 prefix", "2 prefixes".
func counting(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// taleNames are the replays there are.
func taleNames() string {
	var out []string
	for _, t := range tales() {
		out = append(out, t.name)
	}
	return strings.Join(out, ", ")
}

// findTale finds one by its name.
func findTale(name string) *tale {
	all := tales()
	i := slices.IndexFunc(all, func(t *tale) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return all[i]
}
