package decide

import (
	"fmt"
	"strings"

	"rhumb/placement"
)

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
