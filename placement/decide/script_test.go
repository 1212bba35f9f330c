package decide

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

var update = flag.Bool("update", false, "rewrite testdata with what the code does now; review the difference")

// TestScripts plays testdata/*.txt: a command a line, "----", and what it prints.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs (go test -update rewrites it):\n%s", file, firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\n  want %s\n  got  %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// play runs a script and returns it with the outputs of now.
func play(t *testing.T, script string) string {
	s := &stage{t: t, now: epoch(), sessions: make(map[string]int), algorithm: placement.Algorithm}
	var out strings.Builder
	inOutput := false
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" && inOutput:
			inOutput = false
			out.WriteString("\n")
		case inOutput:
		case line == "----":
			inOutput = true
			out.WriteString("----\n" + s.take())
		case line == "" || strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n")
			s.do(strings.Fields(line))
		}
	}
	return out.String()
}

// stage is the fleet of a script.
type stage struct {
	t        *testing.T
	inv      *placement.Inventory
	ct       *placement.ClassTable
	votes    []placement.Vote
	heard    []placement.Vote // ahead of the store
	at       string           // whose node's view is shown; empty: everybody's
	rev      int64
	seq      uint64
	plan     *placement.Plan
	now      time.Time
	sessions map[string]int
	out      strings.Builder
	live     []placement.Announced // what the sites say that they announce
	// algorithm is the version of the binary that makes the plans.
	algorithm int
}

func (s *stage) take() string {
	out := s.out.String()
	s.out.Reset()
	return out
}

func (s *stage) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *stage) do(f []string) {
	commands := map[string]func([]string){
		"fleet": s.fleet, "machine": s.machine, "vote": s.vote, "silence": s.silence, "fail": s.fail, "missed": s.missed, "heal": s.heal, "tick": s.tick,
		"plan": s.makePlan, "drain": s.drain, "undrain": s.undrain, "dial": s.dial, "force": s.force, "policy": s.policy, "skip": s.skip,
		"hear": s.hear, "arrive": s.arrive, "expire": s.expire, "hold": s.hold, "release": s.release, "at": s.from,
		"domain": s.domain, "recovery": s.recovery, "closed": s.closed, "binary": s.binary, "same": s.same,
		"announced": s.says, "retire": s.retire, "restore": s.restore, "delete": s.forget, "judge-deletion": s.judgeDeletion,
		"demand": s.demand, "capacity": s.capacity, "sessions": s.setSessions, "show": s.show, "judge": s.judge, "simulate": s.simulate, "losses": s.losses,
	}
	do := commands[f[0]]
	if do == nil {
		s.t.Fatalf("no command %q", f[0])
	}
	do(f[1:])
}

func (s *stage) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *stage) object(text string) (id placement.ClusterID) {
	if err := id.UnmarshalText([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *stage) fleet(f []string) {
	s.inv, s.ct = fleet(s.number(f[0])), classes(s.t)
	s.votes, s.rev = allUp(s.inv), 1
	s.plan, s.heard, s.at = nil, nil, ""
}

// vote FROM OBJECT STATE [local|shared|hold|process|passive]: it is in the store.
func (s *stage) vote(f []string) {
	s.votes = s.put(s.votes, s.ballot(f))
	s.rev++
}

// hear FROM OBJECT STATE [...]: as vote, but the store does not have it yet.
func (s *stage) hear(f []string) { s.heard = s.put(s.heard, s.ballot(f)) }

// arrive: the store has what was heard, and that is a votes revision.
func (s *stage) arrive([]string) {
	for _, v := range s.heard {
		s.votes = s.put(s.votes, v)
	}
	s.heard = nil
	s.rev++
}

func (s *stage) ballot(f []string) placement.Vote {
	var state placement.State
	if err := state.UnmarshalText([]byte(f[2])); err != nil {
		s.t.Fatal(err)
	}
	v := vote(siteOf(f[0]), f[1], state, placement.NoFault, s.now.Sub(epoch()))
	v.Vantage = vantageOf(f[0])
	s.seq++
	v.Seq = 1000 + s.seq
	for _, word := range f[3:] {
		switch e := placement.Evidence(word); {
		case word == "hold":
			v.Hold = true
		case e == placement.Process || e == placement.Passive:
			v.Second = e
		default:
			v.Fault = placement.Fault(word)
		}
	}
	return v
}

func (s *stage) put(votes []placement.Vote, v placement.Vote) []placement.Vote {
	return append(slices.DeleteFunc(slices.Clone(votes), func(o placement.Vote) bool { return o.Object == v.Object && o.Vantage == v.Vantage }), v)
}

// siteOf and vantageOf read ams1, whose vantage is ams1-a, or ams1/b.
func siteOf(text string) string { return strings.Split(text, "/")[0] }

func vantageOf(text string) string {
	site, machine, _ := strings.Cut(text+"/a", "/")
	return site + "-" + machine[:1]
}

// machine SITE/b: the site has a second vantage, which sees all up.
func (s *stage) machine(f []string) {
	for _, v := range allUp(s.inv) {
		if v.Site == siteOf(f[0]) {
			v.Vantage = vantageOf(f[0])
			s.votes = append(s.votes, v)
		}
	}
	s.rev++
}

// missed SITE/b by SITE/a [unsure]: one vantage of a site hears the other no more.
func (s *stage) missed(f []string) {
	s.votes = slices.Clone(s.votes)
	for i := range s.votes {
		if v := &s.votes[i]; v.Vantage == vantageOf(f[2]) && v.Object == placement.SiteID(v.Site) {
			s.seq++
			v.Without, v.Sure, v.Seq = vantageOf(f[0]), len(f) == 3, 1000+s.seq
		}
	}
	s.rev++
}

func (s *stage) silence(f []string) { s.expire(f) }

// expire SITE[/b] [OBJECT]: the lease of a site's votes, of one machine's, or of one of
// them, ran out.
func (s *stage) expire(f []string) {
	s.votes = slices.DeleteFunc(slices.Clone(s.votes), func(v placement.Vote) bool {
		return v.Site == siteOf(f[0]) && (f[0] == v.Site || v.Vantage == vantageOf(f[0])) && (len(f) == 1 || v.Object == s.object(f[1]))
	})
	s.rev++
}

// fail [site] SITE: it is dead, as everybody sees it. fail machine SITE/b: one of its
// two machines is; the other one says so, and the dead one's votes stand until its lease ends.
func (s *stage) fail(f []string) {
	if f[0] == "machine" {
		other := "a"
		if strings.HasSuffix(f[1], "/a") {
			other = "b"
		}
		s.missed([]string{f[1], "by", siteOf(f[1]) + "/" + other})
		return
	}
	s.votes = killed(s.inv, s.votes, f[len(f)-1], s.now.Sub(epoch()))
	s.rev++
}

// hold SITE: its vantage doubts all that it says of others. release SITE ends it.
func (s *stage) hold(f []string)    { s.doubt(f[0], true) }
func (s *stage) release(f []string) { s.doubt(f[0], false) }

func (s *stage) doubt(site string, on bool) {
	s.votes = slices.Clone(s.votes)
	for i := range s.votes {
		if v := &s.votes[i]; v.Site == site && !v.Own() {
			s.seq++
			v.Hold, v.Seq = on, 1000+s.seq
		}
	}
	s.rev++
}

// at SITE: what follows is seen by that site's node; "at all" ends it.
func (s *stage) from(f []string) { s.at = strings.TrimPrefix(f[0], "all") }

// domain NAME SITE …: these sites share a failure domain.
func (s *stage) domain(f []string) {
	s.change(func(inv *placement.Inventory) {
		for _, site := range f[1:] {
			inv.Site(site).Domains = []string{f[0]}
		}
	})
}

// recovery DELAY RAMP FLOOR
func (s *stage) recovery(f []string) {
	r := placement.DefaultRecovery()
	for i, d := range []*placement.Duration{&r.Delay, &r.Ramp} {
		if err := d.UnmarshalText([]byte(f[i])); err != nil {
			s.t.Fatal(err)
		}
	}
	r.Floor = s.number(f[2])
	s.change(func(inv *placement.Inventory) { inv.Recovery = &r })
}

// closed SERVICE: its policy fails closed, those of the others do not.
func (s *stage) closed(f []string) {
	s.change(func(inv *placement.Inventory) {
		p := inv.Policies[0]
		p.Name, p.AllDown = "closed", placement.NoData
		inv.Policies = append(inv.Policies, p)
		inv.Service(f[0]).Policy = "closed"
	})
}

// binary N: the director's binary is of another version than the nodes'.
func (s *stage) binary(f []string) { s.algorithm = placement.Algorithm + s.number(f[0]) }

// same: a node that has read the votes in another order, and as an older binary
// wrote them, without the fields that it does not know, comes to the same state.
func (s *stage) same([]string) {
	older := slices.Clone(s.votes)
	slices.Reverse(older)
	for i := range older {
		older[i].Domain = ""
	}
	a, b := s.snapshot(), mustUnfold(s.t, s.inv, s.ct, s.plan, older, s.rev)
	s.printf("digests equal: %v", a.Digest == b.Digest)
}

// heal SITE: it lives and is well, as everybody sees it.
func (s *stage) heal(f []string) {
	up := allUp(s.inv)
	s.votes = slices.DeleteFunc(slices.Clone(s.votes), func(v placement.Vote) bool { return v.Site == f[0] || v.Object.Site == f[0] })
	for _, v := range up {
		if v.Site == f[0] || v.Object.Site == f[0] {
			v.Since = s.now
			s.votes = append(s.votes, v)
		}
	}
	s.rev++
}

func (s *stage) tick(f []string) {
	text := f[0]
	if _, err := strconv.Atoi(text); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	s.now = s.now.Add(d)
}

func (s *stage) makePlan([]string) {
	plan, refusals := Plan(PlanInput{Inventory: s.inv, Classes: s.ct, Votes: s.votes, VotesRevision: s.rev, Prev: s.plan,
		Sessions: s.sessions, Announced: s.live, Now: s.now, By: "director", Algorithm: s.algorithm})
	same := Same(plan, s.plan)
	if !same {
		s.plan = plan
	}
	s.printf("plan %d%s", s.plan.Revision, map[bool]string{true: " stays"}[same])
	for _, r := range refusals {
		s.printf("  %v", &r)
	}
	if same {
		return
	}
	if len(plan.Down) > 0 {
		s.printf("  down %v", plan.Down)
	}
	for _, w := range plan.Weights {
		s.printf("  weight %s %d (%s)", w.Cluster, w.PerMille, w.Cause)
	}
	for _, d := range plan.Drains {
		s.printf("  drain %s %s%s", d.Site, d.Phase, map[bool]string{true: " expired"}[d.Expired])
	}
	for _, a := range plan.Steps {
		s.printf("  step %s %s %s", a.Prefix, a.Site, a.Want)
	}
	for _, a := range plan.Anchors {
		s.printf("  anchors %s %v", a.Prefix, a.Sites)
	}
}

// change makes a new inventory, as a change in the store would.
func (s *stage) change(f func(inv *placement.Inventory)) {
	c := *s.inv
	c.Revision++
	c.Prefixes, c.Retirements = slices.Clone(c.Prefixes), slices.Clone(c.Retirements)
	c.Drains, c.Dials, c.Forces = slices.Clone(c.Drains), slices.Clone(c.Dials), slices.Clone(c.Forces)
	c.Policies, c.Services, c.Sites = slices.Clone(c.Policies), slices.Clone(c.Services), slices.Clone(c.Sites)
	f(&c)
	s.inv = &c
}

// drain SITE [for DURATION] [auto]
func (s *stage) drain(f []string) {
	d := placement.Drain{Site: f[0], Audit: placement.Audit{Who: "op", Reason: "power work", Since: s.now}}
	for i, word := range f {
		switch word {
		case "for":
			length, err := time.ParseDuration(f[i+1])
			if err != nil {
				s.t.Fatal(err)
			}
			d.Until = s.now.Add(length)
		case "auto":
			d.Return = "auto"
		}
	}
	s.change(func(inv *placement.Inventory) { inv.Drains = append(inv.Drains, d) })
}

func (s *stage) undrain(f []string) {
	s.change(func(inv *placement.Inventory) {
		for i := range inv.Drains {
			if inv.Drains[i].Site == f[0] {
				inv.Drains[i].Ended = s.now
			}
		}
	})
}

func (s *stage) dial(f []string) {
	s.change(func(inv *placement.Inventory) {
		inv.Dials = append(inv.Dials, placement.Dial{Site: f[0], PerMille: s.number(f[1]), Audit: placement.Audit{Who: "op"}})
	})
}

func (s *stage) force(f []string) {
	s.change(func(inv *placement.Inventory) {
		inv.Forces = append(inv.Forces, placement.Force{Object: s.object(f[0]), State: placement.ForceState(f[1]), Audit: placement.Audit{Who: "op"}})
	})
}

// skip N: the policy passes over so many choices
func (s *stage) skip(f []string) {
	s.change(func(inv *placement.Inventory) { inv.Policies[0].SkipFirst = s.number(f[0]) })
}

// policy ALLDOWN
func (s *stage) policy(f []string) {
	s.change(func(inv *placement.Inventory) { inv.Policies[0].AllDown = placement.AllDown(f[0]) })
}

// demand REGION QPS …
func (s *stage) demand(f []string) {
	s.change(func(inv *placement.Inventory) {
		d := make(map[string]int64)
		for i := 0; i+1 < len(f); i += 2 {
			d[f[i]] = int64(s.number(f[i+1]))
		}
		inv.Services[1].Demand = d
	})
}

// capacity SITE QPS
func (s *stage) capacity(f []string) {
	s.change(func(inv *placement.Inventory) {
		site := inv.Site(f[0])
		site.Clusters = slices.Clone(site.Clusters)
		site.Clusters[1].Capacity = int64(s.number(f[1]))
	})
}

func (s *stage) setSessions(f []string) { s.sessions[f[0]] = s.number(f[1]) }

func (s *stage) snapshot() *placement.Snapshot {
	inv := s.inv
	if inv.Revision != s.plan.Inputs.Inventory {
		s.t.Fatal("the inventory has changed: plan first")
	}
	snap, err := s.unfold()
	if err != nil {
		s.t.Fatal(err)
	}
	return snap
}

// unfold makes the snapshot as a node does: with the votes of the store, or as the
// node of one site, with what it has heard before.
func (s *stage) unfold() (*placement.Snapshot, error) {
	verdicts, patched := s.verdicts()
	return Unfold(s.inv, s.ct, s.plan, verdicts, s.rev, patched)
}

func (s *stage) verdicts() ([]placement.Verdict, bool) {
	votes, patched := s.votes, false
	if s.at != "" {
		votes, patched = Patch(votes, s.heard)
	}
	verdicts := Fold(s.inv, votes, s.plan)
	if s.at != "" && Shun(s.inv, votes, s.at, verdicts) {
		patched = true
	}
	return verdicts, patched
}

// whole prints what differs from a calm day: verdicts, answers, routes, alarms.
func (s *stage) whole() {
	snap, err := s.unfold()
	if err != nil {
		s.printf("kept: %v", err)
		return
	}
	s.printf("%s", snap.Name)
	for i := range snap.Verdicts {
		if v := &snap.Verdicts[i]; v.State > placement.Up || v.Force != "" || v.Shunned {
			s.verdict(v)
		}
	}
	for class, head := range heads(snap, "www") {
		if row := snap.Map("www").Rows[class]; class < len(s.inv.Sites) {
			s.printf("%-8s %s%s", s.className(class), head, map[bool]string{true: " FAIL-OPEN"}[row.FailOpen])
		}
	}
	for _, a := range snap.Announcements {
		if a.Want != placement.Announce {
			s.printf("%s %s %s%s%s  %s", a.Prefix, a.Site, a.Want, prefixed(" ", string(a.Fault)), map[bool]string{true: " intent"}[a.Intent], a.Cause)
		}
	}
	for _, a := range snap.Alarms {
		s.printf("%s %s: %s", a.Kind, a.Object, a.Text)
	}
}

func (s *stage) verdict(v *placement.Verdict) {
	flags := map[bool]string{true: " capped"}[v.Capped] + map[bool]string{true: " agreed"}[v.Agreed] + map[bool]string{true: " shunned"}[v.Shunned]
	s.printf("%-9s %-8s own %-8s %d/%d%s%s%s  %s", v.Object, v.State, v.Own, v.DownDomains, v.Domains,
		prefixed(" fault ", string(v.Fault)), prefixed(" force ", string(v.Force)), flags, v.Cause)
}

func (s *stage) show(f []string) {
	switch f[0] {
	case "verdicts":
		verdicts, _ := s.verdicts()
		for i := range verdicts {
			if len(f) == 1 || strings.HasPrefix(verdicts[i].Object.String(), f[1]) {
				s.verdict(&verdicts[i])
			}
		}
	case "snapshot":
		s.whole()
	case "map":
		snap := s.snapshot()
		s.printf("%s", snap.Name)
		for class, head := range heads(snap, f[1]) {
			row := snap.Map(f[1]).Rows[class]
			s.printf("%-8s %s%s  %s", s.className(class), head, map[bool]string{true: " FAIL-OPEN"}[row.FailOpen], outs(snap, f[1], row))
		}
	case "routes":
		for _, a := range s.snapshot().Announcements {
			s.printf("%s %s %s%s%s  %s", a.Prefix, a.Site, a.Want, prefixed(" ", string(a.Fault)), map[bool]string{true: " intent"}[a.Intent], a.Cause)
		}
	case "alarms":
		for _, a := range s.snapshot().Alarms {
			s.printf("%s %s: %s", a.Kind, a.Object, a.Text)
		}
	case "backups":
		for _, b := range s.snapshot().Backups {
			s.printf("%s %v epoch %d", b.Site, b.Order, b.Epoch)
		}
	default:
		s.t.Fatalf("show %v", f)
	}
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func (s *stage) className(class int) string {
	if class < len(s.ct.Locations) {
		return "@" + towns()[class].site
	}
	return "@nowhere"
}

func outs(s *placement.Snapshot, service string, row *placement.Row) string {
	var out []string
	for _, c := range row.Candidates {
		out = append(out, fmt.Sprintf("%s=%s", s.Map(service).Clusters[c.Cluster].Site, c.Out))
	}
	return strings.Join(out, " ")
}

func (s *stage) judge(f []string) {
	d := placement.Drain{Site: f[0]}
	if r := JudgeDrain(s.inv, s.snapshot(), d, f[1:]); r != nil {
		s.printf("%v", r)
		return
	}
	s.printf("ok")
}

// simulate lose|drain SITE, or dial SITE N
func (s *stage) simulate(f []string) {
	var ch Change
	switch f[0] {
	case "lose":
		ch.Lose = f[1:]
	case "drain":
		ch.Drain = f[1:]
	case "dial":
		ch.Dial = map[string]int{f[1]: s.number(f[2])}
	}
	s.forecast(Simulate(s.snapshot(), ch))
}

func (s *stage) losses([]string) {
	for _, f := range Losses(s.snapshot()) {
		s.forecast(f)
	}
}

func (s *stage) forecast(f Forecast) {
	s.printf("moved %d forced %d, fullest %.2f, headroom %.2f, rtt p50 %.0f -> %.0f ms p95 %.0f -> %.0f ms",
		f.Moved, f.Forced, f.Utilisation, f.Headroom, f.Before.P50, f.After.P50, f.Before.P95, f.After.P95)
	for _, c := range f.Clusters {
		if c.Capacity > 0 {
			s.printf("  %s %d -> %d of %d", c.Cluster, c.Before, c.After, c.Capacity)
		}
	}
}
