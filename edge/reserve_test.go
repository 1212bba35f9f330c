package edge

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/frame"
)

// frames are all that were queued, in order, however many in one buffer.
func (l *link) frames(t *testing.T) (out []frame.Frame) {
	t.Helper()
	for len(l.out) > 0 {
		for r := bytes.NewReader(<-l.out); r.Len() > 0; {
			f, err := frame.Read(r)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
	}
	return out
}

// crowdOf enters n sessions that are nobody's.
func crowdOf(a *Agent, n int) {
	for range n {
		k := testKey(5000 + a.tab.len())
		a.tab.add(&session{key: k}, 1000)
	}
}

// TestBackupRefuses: a Backup keeps as many records as the loss of a failure domain may
// bring beside its own sessions, says why it keeps no more before it acknowledges, and
// counts rightly whatever becomes of a record.
func TestBackupRefuses(t *testing.T) {
	a, la, lc := testAgent(t), testLink("a"), testLink("c")
	a.SetReserve(Reserve{Capacity: 10}) // 9 at most
	a.replica.balance(time.Now())
	crowdOf(a, 6)
	for i := range 5 {
		answers := told(t, a, la, uint64(i+1), frame.Record{Key: testKey(i), Epoch: 7})
		refused := answers[0].Type == frame.Full
		if refused != (i >= 3) || answers[len(answers)-1].Type != frame.Ack {
			t.Fatalf("record %d: %+v", i, answers)
		}
		if f := answers[0]; refused && (f.Seq != uint64(i+1) || string(f.Payload) != refuseRoom || f.Key != testKey(i) || a.replica.has(f.Key)) {
			t.Errorf("refusal %+v", f)
		}
	}
	for i := range 3 { // another loss
		if answers := told(t, a, lc, uint64(i+1), frame.Record{Key: testKey(10 + i), Epoch: 7}); answers[0].Type != frame.Ack {
			t.Errorf("c's record %d: %+v", i, answers)
		}
	}
	if answers := told(t, a, la, 6, frame.Record{Key: testKey(0), Epoch: 7, Generation: 3}); answers[0].Type != frame.Ack {
		t.Errorf("a newer word of a record that is kept: %+v", answers)
	}
	if answers := told(t, a, la, 7, frame.Record{Key: testKey(10), Epoch: 8}); answers[0].Type != frame.Full || a.replica.has(testKey(10)) {
		t.Errorf("a session of c's that went to a, which has no room: %+v", answers)
	}
	a.replica.forget("a", frame.Frame{Key: testKey(0), Epoch: 7})
	if answers := told(t, a, la, 8, frame.Record{Key: testKey(3), Epoch: 7}); answers[0].Type != frame.Ack {
		t.Errorf("a record in the place of one that went: %+v", answers)
	}
	for _, st := range a.replica.take("a", func(frame.Record) bool { return true }) {
		a.replica.putBack(st)
	}
	if r := a.Reserved(); r.Most != 3 || r.Loss != "a" || r.Own != 6 || r.Limit != 9 || r.Capacity != 10 {
		t.Errorf("reserved %+v", r)
	}
	a.replica.take("a", func(frame.Record) bool { return true })
	a.replica.take("c", func(frame.Record) bool { return true })
	if r := a.Reserved(); r.Most != 0 {
		t.Errorf("without records %+v is reserved", r)
	}
}

// TestSharedFate: what two sites share is lost at once, unless this site shares it too.
func TestSharedFate(t *testing.T) {
	for _, tc := range []struct {
		own  []string
		want frame.Type
	}{{nil, frame.Full}, {[]string{"power"}, frame.Ack}} {
		a := testAgent(t)
		peers := slices.Clone(a.view.Load().peers)
		peers[0].Domains, peers[1].Domains = []string{"power", "isp-1"}, []string{"power", "isp-2"}
		if err := a.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
		a.SetReserve(Reserve{Capacity: 4, Domains: tc.own}) // 3 at most
		a.replica.balance(time.Now())
		for i := range 3 {
			told(t, a, testLink("a"), 1, frame.Record{Key: testKey(i), Epoch: 7})
		}
		if answers := told(t, a, testLink("c"), 1, frame.Record{Key: testKey(9), Epoch: 7}); answers[0].Type != tc.want {
			t.Errorf("in %v: %+v, want %v", tc.own, answers, tc.want)
		}
	}
}

// TestObservedTakesNoRoom: records of a service that only counts what it would revive keep
// out nobody.
func TestObservedTakesNoRoom(t *testing.T) {
	a := testAgent(t)
	s := a.view.Load().services[0].Service
	s.Revival = ModeObserve
	if err := a.SetServices([]Service{s}); err != nil {
		t.Fatal(err)
	}
	a.SetReserve(Reserve{Capacity: 2})
	a.replica.balance(time.Now())
	for i := range 5 {
		if answers := told(t, a, testLink("a"), 1, frame.Record{Key: testKey(i), Epoch: 7}); answers[0].Type != frame.Ack {
			t.Fatalf("record %d: %+v", i, answers)
		}
	}
	if r := a.Reserved(); r.Most != 0 {
		t.Errorf("reserved %+v", r)
	}
}

// backed is an agent with one session that has a pledge, and links to both of its Backups.
func backed(t *testing.T) (*Agent, *session, map[string]*link) {
	t.Helper()
	a := testAgent(t)
	links := map[string]*link{"a": testLink("a"), "c": testLink("c")}
	for name, l := range links {
		a.links.byOf[name] = []*link{l}
	}
	s := &session{key: testKey(1), svc: a.view.Load().services[0]}
	s.changed = a.replica.changed
	tn := idleTurn(s.svc.id)
	tn.fresh = newPledge()
	s.turn.Store(tn)
	a.tab.add(s, 10)
	return a, s, links
}

// refuses lets a Backup refuse what it was told last.
func refuses(t *testing.T, a *Agent, l *link, reason string) {
	t.Helper()
	a.replica.out.flush()
	all := l.frames(t)
	last := all[len(all)-1]
	if last.Type != frame.RecordSet {
		t.Fatalf("%s was told %+v", l.peer, all)
	}
	f := frame.Frame{Type: frame.Full, Key: last.Key, Epoch: last.Epoch}
	if reason != "" {
		f.Seq, f.Payload = last.Seq, []byte(reason)
	}
	a.replica.handle(l, f)
	a.replica.handle(l, frame.Frame{Type: frame.Ack, Seq: last.Seq})
	a.replica.next(t.Context(), <-a.replica.full)
}

// TestRefusedGoesOn: the owner goes to the next Backup of the order, a response waits for
// that one, and a session that nobody has room for is counted, not silent, and tries again.
func TestRefusedGoesOn(t *testing.T) {
	a, s, links := backed(t)
	order := rendezvous(s.key, a.view.Load().peers)
	first, second := links[order[0].Name], links[order[1].Name]
	a.replica.tell(t.Context(), s, time.Now())
	refuses(t, a, first, refuseRoom)
	if b := s.backup[tierFar].Load(); b == nil || *b != second.peer || s.turn.Load().fresh.kept() {
		t.Fatalf("its Backup is %v, the response waits: %t", b, !s.turn.Load().fresh.kept())
	}
	refuses(t, a, second, refuseRoom)
	if s.kept() || !s.turn.Load().fresh.kept() {
		t.Error("nobody keeps it, and its response waits")
	}
	a.replica.sweep(t.Context(), time.Now())
	if r := a.Reserved(); r.Bare != 1 || len(first.out)+len(second.out) > 0 {
		t.Errorf("%+v, and %d words to who has refused", r, len(first.out)+len(second.out))
	}
	a.replica.sweep(t.Context(), time.Now().Add(time.Minute))
	a.replica.out.flush()
	if r := a.Reserved(); r.Bare != 0 || len(first.out) != 1 || !s.kept() {
		t.Errorf("after a while %+v, %d words", r, len(first.out))
	}
	a.replica.sweep(t.Context(), time.Now().Add(2*time.Minute))
	a.replica.out.flush()
	if len(second.out) != 0 {
		t.Error("it has two Backups")
	}
	refused := 0.0
	for _, name := range []string{"a", "c"} {
		refused += counterOf(t, a, "rhumb_edge_backup_refusals_total", name, refuseRoom)
	}
	if refused != 2 {
		t.Errorf("%v refusals counted", refused)
	}
}

// counterOf reads a counter by the values of its labels.
func counterOf(t *testing.T, a *Agent, name string, labels ...string) float64 {
	t.Helper()
	families, err := a.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			var have []string
			for _, l := range m.Label {
				have = append(have, l.GetValue())
			}
			slices.Sort(have)
			slices.Sort(labels)
			if f.GetName() == name && slices.Equal(have, labels) {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

// TestRefusedByAnEarlierVersion: a Backup that says no more than that it is full names no
// frame; the session goes to the next all the same.
func TestRefusedByAnEarlierVersion(t *testing.T) {
	a, s, links := backed(t)
	order := rendezvous(s.key, a.view.Load().peers)
	a.replica.tell(t.Context(), s, time.Now())
	refuses(t, a, links[order[0].Name], "")
	if b := s.backup[tierFar].Load(); b == nil || *b != order[1].Name {
		t.Errorf("its Backup is %v", b)
	}
	if n := counterOf(t, a, "rhumb_edge_backup_refusals_total", order[0].Name, refuseOther); n != 1 {
		t.Errorf("%v counted", n)
	}
	// A late word of one that it has left means nothing.
	a.replica.next(t.Context(), noRoom{s.key, order[0].Name, refuseRoom})
	if b := s.backup[tierFar].Load(); b == nil || *b != order[1].Name {
		t.Errorf("after a late word its Backup is %v", b)
	}
}

// TestShed: a Backup whose own sessions have become more gives up what is too much, after a
// while, the last in order, and says so; not that of an owner which cannot be told.
func TestShed(t *testing.T) {
	a, la, lc := testAgent(t), testLink("a"), testLink("c")
	a.links.byOf["a"] = []*link{la}
	a.SetReserve(Reserve{Capacity: 10})
	now := time.Now()
	a.replica.balance(now)
	for i := range 5 {
		told(t, a, la, uint64(i+1), frame.Record{Key: testKey(i), Epoch: 7})
		told(t, a, lc, uint64(i+1), frame.Record{Key: testKey(20 + i), Epoch: 7})
	}
	crowdOf(a, 6) // two too many of each
	for _, after := range []time.Duration{0, time.Second, shedAfter - 1} {
		if a.replica.balance(now.Add(after)); len(la.out) != 0 || a.Reserved().Most != 5 {
			t.Fatalf("after %v: %+v", after, a.Reserved())
		}
	}
	a.replica.balance(now.Add(shedAfter))
	words := la.frames(t)
	if len(words) != 2 || words[0].Type != frame.Full || string(words[0].Payload) != refuseGrown || words[0].Seq != 0 {
		t.Fatalf("a was told %+v", words)
	}
	for i := range 5 {
		if a.replica.has(testKey(i)) != (i < 3) || !a.replica.has(testKey(20+i)) {
			t.Errorf("record %d: a's kept %t, c's %t", i, a.replica.has(testKey(i)), a.replica.has(testKey(20+i)))
		}
	}
	a.replica.balance(now.Add(shedAfter + time.Second))
	a.replica.balance(now.Add(2 * shedAfter))
	if len(la.out) != 0 {
		t.Error("more was given up than there is too much")
	}
}

// TestFirst: who is asked first for a session of a lost site is who its owner would ask
// first to keep it.
func TestFirst(t *testing.T) {
	a := testAgent(t)
	var peers []Peer
	for i := range 7 {
		peers = append(peers, Peer{Name: fmt.Sprintf("s%d", i), Control: a.view.Load().peers[0].Control, Weight: 1 + i})
	}
	if err := a.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	a.SetReserve(Reserve{Weight: 3})
	a.SetDown([]string{"s4"})
	here := 0
	for i := range 500 {
		k := testKey(i)
		var want []string
		owners := append(slices.Delete(slices.Clone(peers), 4, 5), Peer{Name: "b", Weight: 3})
		for _, p := range rendezvous(k, owners)[:pullRank] {
			if p.Name != "b" {
				want = append(want, p.Name)
			} else {
				here++
			}
		}
		if got := a.First(k); !slices.Equal(got, want) {
			t.Fatalf("%s: %v, want %v", k, got, want)
		}
	}
	if here == 0 {
		t.Error("this site is never among the first")
	}
}

// TestPullsWithinCapacity: sessions are asked for as far as there is room, and what comes
// beyond is not taken; what a leaving site gives by itself is.
func TestPullsWithinCapacity(t *testing.T) {
	a, now := testAgent(t), time.Now()
	a.SetReserve(Reserve{Capacity: 10})
	crowdOf(a, 7)
	asked := 0
	for range 5 {
		if a.mayPull(now) {
			asked++
		}
	}
	if n := counterOf(t, a, "rhumb_edge_pulls_declined_total"); asked != 2 || n != 3 {
		t.Errorf("%d asked for and %v declined of 5, with room for 2", asked, n)
	}
	a.pulls.due(testKey(1), now)
	if a.pulledTooMany(testKey(1), now) {
		t.Error("refused while there is room")
	}
	crowdOf(a, 2)
	if _, ok := a.taking.open(testKey(1)); !ok || !a.pulledTooMany(testKey(1), now) {
		t.Error("a session that was asked for is taken without room")
	}
	if a.pulledTooMany(testKey(2), now) || a.mayPull(now.Add(time.Hour)) {
		t.Error("a session that nobody asked for is refused, or more is asked for")
	}
}
