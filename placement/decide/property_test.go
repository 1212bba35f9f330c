package decide

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// history is a random fleet that lives through random faults and intents.
type history struct {
	r     *rand.Rand
	inv   *placement.Inventory
	ct    *placement.ClassTable
	votes []placement.Vote
	rev   int64
	plan  *placement.Plan
	now   time.Time
}

func newHistory(t testing.TB, seed uint64) *history {
	r := rand.New(rand.NewPCG(seed, 99))
	h := &history{r: r, inv: fleet(3 + r.IntN(4)), ct: classes(t), now: epoch()}
	h.votes, h.rev = allUp(h.inv), 1
	h.inv.Policies = append(h.inv.Policies, placement.Policy{Name: "regional", Choose: randomBranch(r, h.inv, 2), AllDown: []placement.AllDown{placement.FailOpen, placement.NoData}[r.IntN(2)]})
	h.inv.Services = append(h.inv.Services, placement.Service{Name: "zap", Names: []string{"zap.cdn.test."}, Clusters: []string{"web"}, Policy: "regional",
		Demand: map[string]int64{"EU": int64(r.IntN(400)), "*": int64(r.IntN(400))}})
	for i := range h.inv.Sites {
		h.inv.Sites[i].Clusters[1].Capacity = 600 + r.Int64N(1000)
	}
	return h
}

func randomBranch(r *rand.Rand, inv *placement.Inventory, depth int) placement.Branch {
	sites := func() (out []string) {
		for _, s := range inv.Sites {
			if r.IntN(2) == 0 {
				out = append(out, s.Name)
			}
		}
		return out
	}
	if depth == 0 {
		return placement.Branch{Sites: sites()}
	}
	sub := func() placement.Branch { return randomBranch(r, inv, depth-1) }
	switch r.IntN(4) {
	case 0:
		return placement.Branch{Geo: map[string]placement.Branch{"EU": sub(), "US": sub(), "*": sub()}}
	case 1:
		return placement.Branch{Failover: []placement.Branch{sub(), sub()}}
	case 2:
		return placement.Branch{Weighted: []placement.Weighted{{Weight: 1 + r.IntN(9), Branch: sub()}, {Weight: 1 + r.IntN(9), Branch: sub()}}}
	}
	return placement.Branch{Sites: sites()}
}

// step lets something happen.
func (h *history) step() {
	h.now = h.now.Add(time.Duration(h.r.IntN(40)) * time.Second)
	from, of := h.inv.Sites[h.r.IntN(len(h.inv.Sites))].Name, h.inv.Sites[h.r.IntN(len(h.inv.Sites))].Name
	at := h.now.Sub(epoch())
	switch h.r.IntN(6) {
	case 0:
		h.votes = killed(h.inv, h.votes, of, at)
	case 1, 2:
		object := []string{"/-", "/web", "/dns"}[h.r.IntN(3)]
		state := []placement.State{placement.Up, placement.Down, placement.Down, placement.Degraded}[h.r.IntN(4)]
		v := vote(from, of+object, state, []placement.Fault{placement.LocalFault, placement.SharedFault}[h.r.IntN(2)], at)
		h.votes = append(h.votes, v)
	case 3:
		h.votes = allUp(h.inv)
	default:
		h.change(of)
	}
	h.rev++
}

// change is something that an operator does.
func (h *history) change(site string) {
	c := *h.inv
	c.Revision++
	c.Drains, c.Dials, c.Forces = slices.Clone(c.Drains), slices.Clone(c.Dials), slices.Clone(c.Forces)
	audit := placement.Audit{Who: "op", Reason: "test", Since: h.now, Until: h.now.Add(time.Minute)}
	switch h.r.IntN(4) {
	case 0:
		c.Drains = append(c.Drains, placement.Drain{Site: site, Return: []string{"", "auto"}[h.r.IntN(2)], Audit: audit})
	case 1:
		for i := range c.Drains {
			c.Drains[i].Ended = h.now
		}
	case 2:
		c.Dials = []placement.Dial{{Site: site + []string{"", "/web"}[h.r.IntN(2)], PerMille: h.r.IntN(1001), Audit: audit}}
	case 3:
		c.Forces = []placement.Force{{Object: placement.ClusterID{Site: site, Name: "web"}, State: []placement.ForceState{placement.ForceDown, placement.ForceUp}[h.r.IntN(2)], Audit: audit}}
	}
	h.inv = &c
}

func (h *history) input() PlanInput {
	return PlanInput{Inventory: h.inv, Classes: h.ct, Votes: h.votes, VotesRevision: h.rev, Prev: h.plan, Now: h.now, By: "x"}
}

func (h *history) replan() { h.plan, _ = Plan(h.input()) }

// state is the snapshot of now; between an operator's change and the next plan
// nodes go on with the inventory that the plan names, so it is made after a plan.
func (h *history) state(t testing.TB) *placement.Snapshot {
	return mustUnfold(t, h.inv, h.ct, h.plan, h.votes, h.rev)
}

func eachHistory(t *testing.T, n int, check func(t *testing.T, h *history)) {
	for seed := range uint64(n) {
		h := newHistory(t, seed)
		h.replan()
		for step := range 12 {
			h.step()
			if step%3 > 0 || h.plan.Inputs.Inventory != h.inv.Revision {
				h.replan()
			}
			check(t, h)
			if t.Failed() {
				t.Fatalf("seed %d step %d", seed, step)
			}
		}
	}
}

// TestSoundSnapshots holds what must be true of every state.
func TestSoundSnapshots(t *testing.T) {
	eachHistory(t, 60, func(t *testing.T, h *history) {
		s := h.state(t)
		if r := s.Check(); r != nil {
			t.Errorf("%v", r)
		}
		for i := range s.Maps {
			checkMap(t, s, &s.Maps[i])
		}
		for _, p := range h.inv.Prefixes {
			if n := len(s.AnchorSites(p.Prefix)); n < p.MinAnchors(len(h.inv.Sites)) {
				t.Errorf("%d anchors", n)
			}
			for _, a := range h.plan.Steps {
				if a.Want == placement.Withdrawn && slices.Contains(s.AnchorSites(a.Prefix), a.Site) {
					t.Errorf("the plan takes its own anchor %s off the world", a.Site)
				}
			}
		}
	})
}

func checkMap(t *testing.T, s *placement.Snapshot, m *placement.ServiceMap) {
	t.Helper()
	open := now(&market{policy: m.Policy, clusters: m.Clusters}, s.Plan, s.Verdicts)
	for class, row := range m.Rows {
		in, upto := 0, uint16(0)
		for _, sh := range row.Shares {
			c := row.Candidates[sh.Candidate]
			if sh.Upto <= upto || c.Out != placement.In {
				t.Errorf("%s class %d: shares %+v of %+v", m.Service.Name, class, row.Shares, row.Candidates)
			}
			if c.Tier != noTier && !open[c.Cluster].open() {
				for _, other := range row.Candidates {
					if other.Tier != noTier && open[other.Cluster].open() {
						t.Errorf("%s class %d: sent to %v (%v) while %v is open", m.Service.Name, class, m.Clusters[c.Cluster], open[c.Cluster].out, m.Clusters[other.Cluster])
					}
				}
			}
			upto = sh.Upto
			in++
		}
		if len(row.Shares) > 0 && upto != whole {
			t.Errorf("%s class %d: shares end at %d", m.Service.Name, class, upto)
		}
		for _, c := range row.Candidates {
			if c.Out == placement.In {
				in--
			}
		}
		if in != 0 {
			t.Errorf("%s class %d: candidates in without a share: %+v %+v", m.Service.Name, class, row.Candidates, row.Shares)
		}
	}
}

// TestNobodyAboveCapacityWhileTheTotalSuffices: with the nearest of all, every
// cluster may take everybody, so the total decides.
func TestNobodyAboveCapacityWhileTheTotalSuffices(t *testing.T) {
	tight := 0
	eachHistory(t, 50, func(t *testing.T, h *history) {
		c := *h.inv
		c.Services = slices.Clone(c.Services[:2]) // without the service that is bound to regions
		c.Dials = nil                             // nor dials, which bind as well
		c.Services[1].Demand = map[string]int64{"europe": int64(h.r.IntN(3000)), "asia": int64(h.r.IntN(2000))}
		h.inv, h.plan = &c, nil
		h.replan()
		h.votes = killed(h.inv, h.votes, h.inv.Sites[0].Name, h.now.Sub(epoch()))
		s := h.state(t)
		l := newLedger(newWorld(h.inv, h.ct, placement.Algorithm), h.plan)
		l.replay(h.plan)
		st := l.statuses(func(m *market) []status { return now(m, h.plan, s.Verdicts) })
		l.move(st)
		var demand, room int64
		for i, sv := range l.services {
			for _, d := range sv.demand {
				demand += d
			}
			for k, one := range st[sv.m] {
				if i == 1 && one.open() && one.limit == whole {
					room += l.capacity[sv.fleet[k]]
				}
			}
		}
		if demand > room || demand == 0 {
			return
		}
		if demand*10 > room*8 {
			tight++
		}
		for i, load := range l.load(nil) {
			if load > l.capacity[i]+demand/whole*4 { // whole per mille of a few classes
				t.Errorf("cluster %d carries %d of %d; demand %d, room %d", i, load, l.capacity[i], demand, room)
			}
		}
	})
	if tight < 20 {
		t.Fatalf("only %d states are tight: this proves little", tight)
	}
}

// TestOrderOfInputsDoesNotMatter: equal inputs, however they are sorted, give
// equal plans and equal digests, with and without anything remembered.
func TestOrderOfInputsDoesNotMatter(t *testing.T) {
	var u Unfolder
	var p Planner
	eachHistory(t, 25, func(t *testing.T, h *history) {
		s := h.state(t)
		shuffled := slices.Clone(h.votes)
		h.r.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
		verdicts := Fold(h.inv, shuffled, h.plan)
		if !reflect.DeepEqual(verdicts, s.Verdicts) {
			t.Errorf("verdicts depend on the order of votes:\n%+v\n%+v", verdicts, s.Verdicts)
		}
		again, err := u.Unfold(h.inv, h.ct, h.plan, verdicts, h.rev, true)
		if err != nil || again.Digest != s.Digest {
			t.Errorf("digest %s, again %s (%v)", s.Digest, again.Digest, err)
		}
		in := h.input()
		a, _ := Plan(in)
		in.Votes = shuffled
		b, _ := p.Plan(in)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("plans differ:\n%+v\n%+v", a, b)
		}
	})
}

// TestDigestTellsApart: what acts differently has another digest, what only is
// named or explained differently has not.
func TestDigestTellsApart(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	votes := allUp(inv)
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, Now: epoch()})
	base := mustUnfold(t, inv, ct, plan, votes, 1)
	same := slices.Clone(votes)
	for i := range same {
		same[i].Cause, same[i].Since = "other words", same[i].Since.Add(time.Hour)
	}
	if s := mustUnfold(t, inv, ct, plan, same, 2); s.Digest != base.Digest {
		t.Error("times and causes are in the digest")
	}
	cases := map[string]func(inv *placement.Inventory, plan *placement.Plan){
		"weight": func(_ *placement.Inventory, p *placement.Plan) {
			p.Weights = []placement.Weight{{Cluster: placement.ClusterID{Site: "ams1", Name: "web"}, PerMille: 500}}
		},
		"split": func(_ *placement.Inventory, p *placement.Plan) {
			p.Services = slices.Clone(p.Services)
			p.Services[1].Splits = []placement.Split{{Class: 0, Shares: []placement.SplitShare{{Cluster: placement.ClusterID{Site: "nyc1", Name: "web"}, PerMille: 1000}}}}
		},
		"step": func(inv *placement.Inventory, p *placement.Plan) {
			p.Steps = []placement.Announcement{{Prefix: inv.Prefixes[0].Prefix, Site: "ams1", Want: placement.GShut}}
		},
		"anchors": func(_ *placement.Inventory, p *placement.Plan) {
			p.Anchors = []placement.Anchors{{Prefix: p.Anchors[0].Prefix, Sites: []string{"sin1", "nyc1"}}}
		},
		"backups": func(_ *placement.Inventory, p *placement.Plan) {
			p.Backups = slices.Clone(p.Backups)
			p.Backups[0].Epoch++
		},
		"mode": func(inv *placement.Inventory, _ *placement.Plan) {
			inv.Prefixes = slices.Clone(inv.Prefixes)
			inv.Prefixes[0].Mode = placement.Observe
		},
	}
	for name, change := range cases {
		i, p := *inv, *plan
		change(&i, &p)
		if s := mustUnfold(t, &i, ct, &p, votes, 1); s.Digest == base.Digest {
			t.Errorf("%s is not in the digest", name)
		}
	}
}

// TestRecoveryReturnsToTheSameMap: after everything is up again and the ramps
// have ended, every class is where it was.
func TestRecoveryReturnsToTheSameMap(t *testing.T) {
	step := 0
	eachHistory(t, 25, func(t *testing.T, h *history) {
		if step++; step%4 > 0 {
			return
		}
		calm := newHistory(t, 1)
		calm.inv = h.inv
		c := *h.inv
		c.Drains, c.Dials, c.Forces = nil, nil, nil
		calm.inv = &c
		calm.replan()
		want := calm.state(t)
		after := *h
		after.inv, after.votes = &c, allUp(&c)
		for range 6 {
			after.replan()
			after.now = after.now.Add(40 * time.Second)
		}
		got := after.state(t)
		for i := range want.Maps {
			if service := want.Maps[i].Service.Name; !slices.Equal(heads(got, service), heads(want, service)) {
				t.Errorf("%s: %v, was %v", service, heads(got, service), heads(want, service))
			}
		}
	})
}

// TestScopesPartition: everybody in a scope gets the same choice.
func TestScopesPartition(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	inv.Services[1].Demand = map[string]int64{"europe": 1500}
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()})
	s := mustUnfold(t, inv, ct, plan, allUp(inv), 1)
	split := false
	r := rand.New(rand.NewPCG(4, 4))
	for range 3000 {
		client := netip.AddrFrom4([4]byte{byte(9 + r.IntN(3)), byte(r.IntN(2)), byte(r.IntN(8)), byte(r.IntN(256))})
		a, _ := s.Choose("www", client, nil)
		split = split || len(a.Row.Shares) > 1
		in := a.Scope.Masked().Addr().As4()
		for bit := a.Scope.Bits(); bit < 32; bit++ {
			in[bit/8] |= byte(r.IntN(2)) << (7 - bit%8)
		}
		b, _ := s.Choose("www", netip.AddrFrom4(in), nil)
		idA, _ := a.Cluster()
		idB, _ := b.Cluster()
		if idA != idB || a.Scope != b.Scope {
			t.Fatalf("%v gets %v in %v, %v gets %v in %v", client, idA, a.Scope, netip.AddrFrom4(in), idB, b.Scope)
		}
	}
	if !split {
		t.Error("no class was split: this proves little")
	}
}
