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
