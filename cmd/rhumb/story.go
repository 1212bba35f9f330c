package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/decide"
)

// What the log of the fleet tells of a site's death: what each vantage sees
// (votes), what all of them make of it (verdicts), which answers moved, how the
// routes follow (the role bgp tells that itself), and the way back.

// Answers are told when something else is told, or when this part of them has
// moved and the last word on it is this old: a ramp is one story, not twenty.
const (
	answersTold  = 0.01
	answersEvery = 10 * time.Second
)

// story is the applier which tells the log what changed from one snapshot to the
// next. Every director's unit has one, and all come to the same end; narrator
// says which of them speaks. Owned by the goroutine that applies.
type story struct {
	node  string
	tell  func(placement.Event)
	nodes func() []placement.Node
	now   func() time.Time

	told *placement.Snapshot // up to here everything else was told
	// answers is the snapshot whose answers were told last, and when.
	answers *placement.Snapshot
	at      time.Time
}

// Apply tells what is new. The first snapshot is where the story begins.
func (s *story) Apply(_ context.Context, next *placement.Snapshot) {
	old := s.told
	s.told = next
	if old == nil {
		s.answers = next
		return
	}
	events := slices.Concat(verdictEvents(old, next), drainEvents(old.Plan, next.Plan))
	now := s.now()
	mine := narrator(old, next, s.nodes()) == s.node
	if len(events) > 0 || (s.answers.Name.Plan != next.Name.Plan && now.Sub(s.at) >= answersEvery) {
		if part, _ := decide.AnswerChange(s.answers, next); part >= answersTold {
			events = append(events, placement.Event{Kind: "snapshot", Text: movedText(part, events)})
			s.answers, s.at = next, now
		}
	}
	for _, e := range events {
		if mine {
			e.At, e.Snapshot = now, next.Name.String()
			s.tell(e)
		}
	}
}

// movedText says how many answers moved and what with, in one line.
func movedText(part float64, with []placement.Event) string {
	text := fmt.Sprintf("%.0f %% of the answers moved", 100*part)
	var causes []string
	for _, e := range with {
		causes = append(causes, e.Text)
	}
	if len(causes) == 0 {
		return text
	}
	return text + " (" + strings.Join(causes, "; ") + ")"
}

// narrator is the node which tells what all saw: the first by name of those that
// run the role placement at a site which was and is in service. A dead site's
// nodes stay listed until their lease is over, so the verdict decides, not the
// list; and who has just come back has not seen what was before. Empty: nobody.
func narrator(old, next *placement.Snapshot, nodes []placement.Node) string {
	var names []string
	for _, n := range nodes {
		site := placement.SiteID(n.Site)
		was, is := old.Verdict(site), next.Verdict(site)
		if slices.Contains(n.Roles, config.RolePlacement) && was.Usable() && is.Usable() {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// verdictEvents lists the objects whose standing changed, in order of object.
// What changes with its whole site is not told beside it, and that something new
// turns out to be up is no news.
func verdictEvents(old, next *placement.Snapshot) []placement.Event {
	changed := make(map[string]bool)
	var out []placement.Event
	for _, v := range next.Verdicts {
		if before := old.Verdict(v.Object); v.Object.IsSite() && before.Object == v.Object && standing(&before) != standing(&v) {
			changed[v.Object.Site] = true
		}
	}
	for _, v := range next.Verdicts {
		before := old.Verdict(v.Object)
		was, is := standing(&before), standing(&v)
		known := before.Object == v.Object
		if !known || was == is || (was == "unknown" && is == "up") || (!v.Object.IsSite() && changed[v.Object.Site]) {
			continue
		}
		out = append(out, placement.Event{Kind: "health", Site: v.Object.Site, Text: objectName(v.Object) + " is " + is + because(v.Cause) + ", was " + was})
	}
	return out
}

// standing is what a verdict means to clients, in words.
func standing(v *placement.Verdict) string {
	switch {
	case v.Force != placement.NoForce:
		return "forced " + string(v.Force)
	case v.State == placement.Down && v.Capped:
		return "down, kept in service"
	}
	return v.State.String()
}

func objectName(id placement.ClusterID) string {
	if id.IsSite() {
		return id.Site
	}
	return id.String()
}

// because is a cause in brackets, or nothing where there is none.
func because(cause string) string {
	if cause == "" {
		return ""
	}
	return " (" + cause + ")"
}

// drainEvents lists the phases that drains have reached, in order of site.
func drainEvents(old, next *placement.Plan) []placement.Event {
	var out []placement.Event
	for _, d := range next.Drains {
		was := old.Drain(d.Site)
		if was == nil || was.Phase != d.Phase {
			out = append(out, placement.Event{Kind: "drain", Site: d.Site, Text: d.Site + " drain: " + string(d.Phase)})
		}
		if d.Expired && (was == nil || !was.Expired) {
			out = append(out, placement.Event{Kind: "drain", Site: d.Site, Text: d.Site + " drain: its time has run out; the site stays drained"})
		}
	}
	for _, d := range old.Drains {
		if next.Drain(d.Site) == nil {
			out = append(out, placement.Event{Kind: "drain", Site: d.Site, Text: d.Site + " drain: over, the site is back"})
		}
	}
	return out
}

// voteTeller stands before the sink of this node's votes and tells the log when
// the node changes its mind. Safe for concurrent use.
type voteTeller struct {
	tell func(placement.Event)

	mu     sync.Mutex
	last   map[placement.ClusterID]placement.State
	missed string // the site's other vantage, once it was told of as gone
}

func newVoteTeller(tell func(placement.Event)) *voteTeller {
	return &voteTeller{tell: tell, last: make(map[placement.ClusterID]placement.State)}
}

// cast notes a vote. The first one on an object is news only if it is bad, and a
// vantage which doubts itself tells nothing: its votes count for nobody.
func (t *voteTeller) cast(v placement.Vote) {
	if v.Hold {
		return
	}
	t.mu.Lock()
	was := t.last[v.Object] // Unknown before the first
	t.last[v.Object] = v.State
	if v.Object == placement.SiteID(v.Site) {
		t.other(&v)
	}
	t.mu.Unlock()
	if was == v.State || (was == placement.Unknown && v.State == placement.Up) {
		return
	}
	t.tell(placement.Event{At: v.Since, Kind: "health", Site: v.Object.Site,
		Text: fmt.Sprintf("%s sees %s %s%s, was %s", v.Vantage, objectName(v.Object), v.State, because(v.Cause), was)})
}

// other tells that the site's other vantage is gone, and that it is back. mu is held.
func (t *voteTeller) other(v *placement.Vote) {
	switch {
	case v.Sure && t.missed != v.Without:
		t.missed = v.Without
		t.tell(placement.Event{Kind: "health", Site: v.Site, Text: v.Vantage + " hears " + v.Without + ", on the other machine of its site, no more; what that one said counts no more"})
	case v.Without == "" && t.missed != "":
		t.tell(placement.Event{Kind: "health", Site: v.Site, Text: v.Vantage + " hears " + t.missed + " again"})
		t.missed = ""
	}
}

// forget drops an object that is no longer looked at.
func (t *voteTeller) forget(id placement.ClusterID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.last, id)
}

// alarmWatch tells the log when an alarm of this unit begins and ends. An alarm
// counts when two looks in a row find it: inputs arrive one after the other, and
// the moment between them is nothing to tell. Owned by the report's loop.
type alarmWatch struct {
	seen, told map[string]string // by kind and object: its text when first seen
}

// look compares with the last look and returns what there is to tell, in order.
func (w *alarmWatch) look(alarms []placement.Alarm) []placement.Event {
	var out []placement.Event
	present, told := make(map[string]string), make(map[string]string)
	for _, a := range alarms {
		key := strings.TrimSpace(a.Kind + " " + a.Object)
		present[key] = a.Text
		_, before := w.seen[key]
		_, already := w.told[key]
		if before && !already {
			out = append(out, placement.Event{Kind: "snapshot", Text: key + ": " + a.Text})
		}
		if before || already {
			told[key] = a.Text
		}
	}
	for _, key := range sortedKeys(w.told) {
		if _, still := present[key]; !still {
			out = append(out, placement.Event{Kind: "snapshot", Text: key + ": over"})
		}
	}
	w.seen, w.told = present, told
	return out
}
