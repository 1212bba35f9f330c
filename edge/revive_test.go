package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/frame"
	"rhumb/edge/reserve"
	"rhumb/edge/silence"
)

// testAgent is site b's, not running, with one service and the peers a and c.
func testAgent(t testing.TB) *Agent {
	t.Helper()
	vip := netip.MustParseAddrPort("192.0.2.10:443")
	at := netip.MustParseAddrPort("198.51.100.6:7946")
	a, err := New(Config{Site: "b", Control: at, Moves: Moves{Backups: true},
		TLS:        &tls.Config{Certificates: make([]tls.Certificate, 1), RootCAs: x509.NewCertPool(), ClientCAs: x509.NewCertPool()},
		Peers:      []Peer{{Name: "a", Control: at, Weight: 1}, {Name: "c", Control: at, Weight: 1}},
		Services:   []Service{{Name: "video", Kind: KindContent, Mode: ModeAct, VIPs: []netip.AddrPort{vip}, Root: t.TempDir(), Revival: ModeAct, Freshness: FreshL1}},
		Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// refusals reads the counter of lower epochs.
func refusals(t *testing.T, a *Agent) float64 {
	t.Helper()
	families, err := a.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "rhumb_edge_refused_epoch_total" {
			return f.Metric[0].Counter.GetValue()
		}
	}
	t.Fatal("no counter of refused epochs")
	return 0
}

// testLink is a link without a connection; what is sent stays in it.
func testLink(peer string) *link {
	return &link{peer: peer, out: make(chan []byte, 16), done: make(chan struct{})}
}

// sent are the frames that were queued, in order.
func (l *link) sent(t *testing.T) []frame.Frame {
	t.Helper()
	var out []frame.Frame
	for len(l.out) > 0 {
		f, err := frame.Read(bytes.NewReader(<-l.out))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

// told stores a record as its owner's frame does.
func told(t *testing.T, a *Agent, l *link, seq uint64, rec frame.Record) []frame.Frame {
	t.Helper()
	a.replica.handle(l, frame.Frame{Type: frame.RecordSet, Seq: seq, Key: rec.Key, Epoch: rec.Epoch,
		Generation: rec.Generation, Payload: frame.AppendRecord(nil, rec)})
	return l.sent(t)
}

// TestLowerEpochIsRefused: the owner of a session that goes on here under a later
// epoch hears so, and its record is not kept; nor is one that is older than what
// is known of the session.
func TestLowerEpochIsRefused(t *testing.T) {
	a, l := testAgent(t), testLink("a")
	rec := frame.Record{Key: testKey(1), Epoch: 7, Generation: 2}
	a.tab.add(&session{key: rec.Key, epoch: 8}, 10)
	answers := told(t, a, l, 1, rec)
	if len(answers) != 2 || answers[0].Type != frame.Claimed || answers[0].Epoch != 8 || answers[0].Key != rec.Key || answers[1].Type != frame.Ack {
		t.Errorf("answers %+v, want claimed under epoch 8, and an ack", answers)
	}
	if a.replica.has(rec.Key) || refusals(t, a) != 1 {
		t.Errorf("kept %t, refused %v; want neither kept nor uncounted", a.replica.has(rec.Key), refusals(t, a))
	}
	other := frame.Record{Key: testKey(2), Epoch: 7, Generation: 2}
	told(t, a, l, 2, other)
	for i, lower := range []frame.Record{{Key: other.Key, Epoch: 6, Generation: 9}, {Key: other.Key, Epoch: 7, Generation: 1}} {
		told(t, a, l, uint64(3+i), lower)
	}
	if got := a.replica.store[other.Key].rec; got.Epoch != 7 || got.Generation != 2 || refusals(t, a) != 3 {
		t.Errorf("record of epoch %d generation %d, %v refused; want 7, 2 and 3", got.Epoch, got.Generation, refusals(t, a))
	}
}

// TestOneClaim: a record is claimed once, by whoever comes first: the verdict
// against its site or the site's own new process.
func TestOneClaim(t *testing.T) {
	a, l := testAgent(t), testLink("a")
	for i := range 3 {
		told(t, a, l, uint64(i+1), frame.Record{Key: testKey(i), Epoch: 7, Service: a.view.Load().services[0].id})
	}
	told(t, a, testLink("c"), 1, frame.Record{Key: testKey(9), Epoch: 7})
	for want := range uint64(2) {
		got := a.replica.recall("a")
		if len(got) != 3 || got[0].rec.Epoch != 8+want {
			t.Fatalf("recall %d: %d records of epoch %d, want 3 of %d", want, len(got), got[0].rec.Epoch, 8+want)
		}
	}
	first := a.replica.take("a", func(r frame.Record) bool { return r.Key != testKey(1) })
	if len(first) != 2 || first[0].rec.Epoch != 9 || first[0].rec.Key.Compare(first[1].rec.Key) >= 0 {
		t.Errorf("took %+v, want two in order, of epoch 9", first)
	}
	a.revival.ready.Store(true)
	if again := a.replica.take("a", a.mayRevive); len(again) != 1 || len(a.replica.recall("a")) != 0 {
		t.Errorf("took %d once more, want the one that was left", len(again))
	}
	a.replica.putBack(first[0])
	if !a.replica.has(first[0].rec.Key) || a.replica.has(first[1].rec.Key) || !a.replica.has(testKey(9)) {
		t.Error("what was put back, and c's, should be here, and nothing else")
	}
	told(t, a, l, 4, frame.Record{Key: first[1].rec.Key, Epoch: 12})
	a.replica.putBack(first[1])
	if got := a.replica.store[first[1].rec.Key].rec.Epoch; got != 12 {
		t.Errorf("an old claim replaced what the owner has said since: epoch %d, want 12", got)
	}
}

// TestSpared: an owner that speaks of a session ends its revival.
func TestSpared(t *testing.T) {
	a, l := testAgent(t), testLink("a")
	rec := frame.Record{Key: testKey(1), Epoch: 7}
	rd := a.revival.begin(stored{rec: rec, from: "a"}, 8, time.Now(), time.Minute)
	if a.revival.begin(stored{rec: rec, from: "a"}, 8, time.Now(), time.Minute) != nil {
		t.Error("a second round began for one session")
	}
	told(t, a, testLink("c"), 1, rec)
	select {
	case <-rd.over:
		t.Error("the word of another site ended the round")
	default:
	}
	told(t, a, l, 1, rec)
	select {
	case <-rd.over:
	default:
		t.Error("the owner's word did not end the round")
	}
	if _, result, _ := a.revival.attempt(t.Context(), rd, rd.sight(), time.Hour); result != reviveLost {
		t.Errorf("the round ended with %q, want %q", result, reviveLost)
	}
}

// TestDownIsNoBackup: a site that is down gets no records, and is known to.
func TestDownIsNoBackup(t *testing.T) {
	a := testAgent(t)
	a.SetDown([]string{"a", "b"})
	if got := a.alive(); len(got) != 1 || got[0].Name != "c" || a.isDown("b") || !a.isDown("a") {
		t.Errorf("alive %v, b down %t, a down %t; want c, and never itself down", got, a.isDown("b"), a.isDown("a"))
	}
	s := &session{}
	tn := &turn{}
	s.turn.Store(tn)
	sh := &shadow{order: order{Place: reserve.Place{Backup: "a"}}, link: testLink("a"), turn: tn, at: time.Now()}
	if !sh.due(s, a.isDown, time.Now()) || sh.due(s, func(string) bool { return false }, time.Now()) {
		t.Error("a record is due anew when its Backup is down, and only then")
	}
}

// TestFreshL1: the response of a service with freshness L1 waits for the Backup's
// acknowledgement, not for one of an earlier record, and not for ever.
func TestFreshL1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &session{}, testLink("a")
		tn := &turn{fresh: newPledge()}
		for _, kept := range []*pledge{nil, tn.fresh} {
			if err := l.sendNumbered(frame.Frame{Type: frame.RecordSet, Key: testKey(1)}, kept); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		go func() {
			time.Sleep(10 * time.Millisecond)
			_ = l.acked(1)
			time.Sleep(10 * time.Millisecond)
			_ = l.acked(2)
		}()
		s.secure(context.Background(), tn)
		if got := time.Since(begun); got != 20*time.Millisecond {
			t.Errorf("went on after %v, want 20ms: when the second frame was acknowledged", got)
		}
		if err := l.acked(3); err == nil {
			t.Error("an acknowledgement of what was never sent passes")
		}
		s.secure(context.Background(), &turn{})
		begun = time.Now()
		s.secure(context.Background(), &turn{fresh: newPledge()})
		if got := time.Since(begun); got != freshLimit {
			t.Errorf("a silent Backup cost %v, want %v", got, freshLimit)
		}
		waived := &turn{fresh: newPledge()}
		waived.waive()
		waived.waive()
		s.secure(context.Background(), waived)
	})
}

// TestWaivedWithoutBackup: with every Backup down no response waits.
func TestWaivedWithoutBackup(t *testing.T) {
	a := testAgent(t)
	a.SetDown([]string{"a", "c"})
	s := &session{key: testKey(1), svc: a.view.Load().services[0]}
	s.changed = a.replica.changed
	tn := &turn{fresh: newPledge()}
	s.turn.Store(tn)
	a.tab.add(s, 1)
	a.replica.tell(t.Context(), s, time.Now())
	select {
	case <-tn.fresh.done:
	default:
		t.Error("a response waits although no site can be its Backup")
	}
}

// TestGathered: a session's turns that follow each other soon cost one record, those that
// responses wait for leave at once, all of them in one buffer; and what many sessions are
// told is acknowledged once.
func TestGathered(t *testing.T) {
	a, l := testAgent(t), testLink("c")
	a.SetDown([]string{"a"})
	a.links.byOf["c"] = []*link{l}
	var all []*session
	for i := range 5 {
		s := &session{key: testKey(i), svc: a.view.Load().services[0]}
		s.turn.Store(idleTurn(s.svc.id))
		s.changed = a.replica.changed
		a.tab.add(s, 10)
		for range 3 {
			s.changed(s)
		}
		all = append(all, s)
	}
	if n := len(a.replica.lot.young); n != 5 || len(a.replica.lot.begun) != 1 || len(a.replica.dirty) != 0 {
		t.Fatalf("%d of 5 sessions gathered, %d words of that, %d in a hurry", n, len(a.replica.lot.begun), len(a.replica.dirty))
	}
	fresh := idleTurn(all[0].svc.id)
	fresh.fresh = newPledge()
	all[0].setTurn(fresh)
	a.replica.hurry(t.Context(), <-a.replica.dirty)
	if a.replica.out.flush(); len(l.out) != 1 {
		t.Fatalf("%d buffers, want that of the response that waits", len(l.out))
	}
	if got := l.sent(t); len(got) != 1 || got[0].Key != all[0].key || got[0].Seq != 1 {
		t.Errorf("told %+v", got)
	}
	if !a.replica.leave(t.Context()) {
		t.Error("nothing more, though all came since the last time")
	}
	if a.replica.out.flush(); len(l.out) != 0 {
		t.Fatalf("%d buffers of what has just come", len(l.out))
	}
	a.tab.remove(all[1]) // it ends too soon
	if a.replica.leave(t.Context()) {
		t.Error("more, though nothing has come")
	}
	a.replica.out.flush()
	if len(l.out) != 1 {
		t.Fatalf("%d buffers, want one with all", len(l.out))
	}
	r, n := bytes.NewReader(<-l.out), uint64(1)
	for r.Len() > 0 {
		f, err := frame.Read(r)
		if n++; err != nil || f.Seq != n || f.Key == all[0].key || f.Key == all[1].key {
			t.Errorf("frame %d: %+v %v", n, f, err)
		}
	}
	if n != 4 {
		t.Errorf("%d records, want those of the 3 others", n-1)
	}
	if err := l.acked(4); err != nil {
		t.Error(err)
	}
	all[2].setTurn(idleTurn(all[2].svc.id))
	if len(a.replica.lot.young) != 1 || len(a.replica.lot.begun) != 1 {
		t.Error("a turn after the record is not noted")
	}
}

// TestEndsAreGathered: what is told of sessions that end leaves together, with the records of
// those that go on, and nothing of those whose record nobody has.
func TestEndsAreGathered(t *testing.T) {
	a, l := testAgent(t), testLink("c")
	a.SetDown([]string{"a"})
	a.links.byOf["c"] = []*link{l}
	var all []*session
	leave := func() {
		for a.replica.leave(t.Context()) {
		}
		a.replica.out.flush()
	}
	for i := range 4 {
		s := &session{key: testKey(i), epoch: 7, svc: a.view.Load().services[0]}
		s.turn.Store(idleTurn(s.svc.id))
		s.changed = a.replica.changed
		a.tab.add(s, 10)
		if all = append(all, s); i < 3 {
			s.changed(s)
		}
	}
	leave()
	<-l.out
	for _, s := range all[1:] { // one of them was never told
		a.tab.remove(s)
		a.replica.ended(s)
	}
	if n := len(a.replica.lot.ends); n != 2 {
		t.Fatalf("%d ends gathered, want those of the two whose records are kept", n)
	}
	all[0].setTurn(idleTurn(all[0].svc.id))
	if leave(); len(l.out) != 1 {
		t.Fatalf("%d buffers, want one with all", len(l.out))
	}
	r := bytes.NewReader(<-l.out)
	for i, want := range []frame.Type{frame.Retire, frame.Retire, frame.RecordSet} {
		of := all[(i+1)%3].key
		if f, err := frame.Read(r); err != nil || f.Type != want || f.Key != of || f.Epoch != 7 || f.Seq != uint64(4+i) {
			t.Errorf("frame %d: %+v %v, want %v of %v", i, f, err, want, of)
		}
	}
	if r.Len() > 0 || all[1].kept() || len(a.replica.own) != 1 {
		t.Errorf("%d octets behind, kept %t, %d shadows", r.Len(), all[1].kept(), len(a.replica.own))
	}
	leave()
	if len(l.out) != 0 {
		t.Error("the same is told again")
	}
}

// TestOneAck: frames that came together are acknowledged once.
func TestOneAck(t *testing.T) {
	a, l, more := testAgent(t), testLink("a"), true
	l.more = func() bool { return more }
	for i := range 3 {
		more = i < 2
		answers := told(t, a, l, uint64(i+1), frame.Record{Key: testKey(i), Epoch: 7})
		if want := i / 2; len(answers) != want || want > 0 && answers[0].Seq != 3 {
			t.Errorf("frame %d: answers %+v", i, answers)
		}
		if l.owed != more {
			t.Errorf("frame %d: owed %t", i, l.owed)
		}
	}
}

// TestGivenAwayIsNotTold: from the commit on the taker tells the Backup of a
// session; until then, and when it stays after all, its owner does.
func TestGivenAwayIsNotTold(t *testing.T) {
	for state, want := range map[State]int{Active: 1, Dumped: 1, Moving: 0, Pinned: 1} {
		a, l := testAgent(t), testLink("c")
		a.SetDown([]string{"a"})
		a.links.byOf["c"] = []*link{l}
		s := &session{key: testKey(1), svc: a.view.Load().services[0]}
		s.turn.Store(idleTurn(s.svc.id))
		s.state.Store(int32(state))
		a.tab.add(s, 1)
		a.replica.tell(t.Context(), s, time.Now())
		a.replica.out.flush()
		if got := l.sent(t); len(got) != want {
			t.Errorf("%v: %d frames, want %d", state, len(got), want)
		}
	}
}

// TestWatchPause: never shorter than it takes a client to answer, never so long that
// a session hangs for more than a few seconds.
func TestWatchPause(t *testing.T) {
	for _, tc := range []struct {
		took, want time.Duration
		n          int
	}{
		{0, watchEvery, 0},
		{40 * time.Millisecond, watchEvery, 0},
		{40 * time.Millisecond, 4 * watchEvery, 2},
		{600 * time.Millisecond, 1200 * time.Millisecond, 0},
		{10 * time.Second, watchLong, 0},
		{0, watchLong, againMost},
		{1 << 60, watchLong, againMost},
	} {
		if got := watchPause(min(tc.took, reviveLife), tc.n); got != tc.want {
			t.Errorf("answer after %v, restore %d: %v, want %v", tc.took, tc.n, got, tc.want)
		}
	}
}

// TestProgress: only a client that answers what the kernel does not understand, twice,
// is revived again; none that is slow, silent or does not read.
func TestProgress(t *testing.T) {
	for _, tc := range []struct {
		name  string
		looks []reach
		want  []remedy
	}{
		{"acknowledges", []reach{{acked: 10, waiting: true}, {acked: 20, waiting: true}}, []remedy{remedyNone, remedyNone}},
		{"nothing to send", []reach{{}, {refused: 1}, {refused: 2}, {refused: 3}}, []remedy{remedyNone, remedyNone, remedyNone, remedyNone}},
		{"does not read", []reach{{waiting: true}, {waiting: true}, {waiting: true}, {waiting: true}}, []remedy{remedyAsk, remedyAsk, remedyAsk, remedyAsk}},
		{"the same, and keeps alive", []reach{{refused: 1, waiting: true}, {refused: 1, waiting: true}, {refused: 2, waiting: true}, {refused: 2, waiting: true}},
			[]remedy{remedyAsk, remedyAsk, remedyAsk, remedyAsk}},
		{"slow", []reach{{waiting: true}, {acked: 1, waiting: true}, {acked: 1, refused: 1, waiting: true}, {acked: 2, refused: 2, waiting: true}},
			[]remedy{remedyAsk, remedyNone, remedyAsk, remedyNone}},
		{"stands elsewhere", []reach{{waiting: true}, {refused: 1, waiting: true}, {refused: 2, waiting: true}}, []remedy{remedyAsk, remedyAsk, remedyAgain}},
		{"acknowledges the first late packets, then what was never sent", []reach{{acked: 10, refused: 3, waiting: true}, {acked: 10, refused: 9, waiting: true}, {acked: 10, refused: 10, waiting: true}},
			[]remedy{remedyNone, remedyAsk, remedyAgain}},
	} {
		p := progress{}
		for i, now := range tc.looks {
			if got := p.look(now); got != tc.want[i] {
				t.Errorf("%s, look %d: %d, want %d", tc.name, i, got, tc.want[i])
			}
		}
	}
}

// TestHeard: only a segment of the claimed flow itself reaches its round.
func TestHeard(t *testing.T) {
	a, rec := testAgent(t), lostRecord()
	rd := a.revival.begin(stored{rec: rec, from: "a"}, 8, time.Now(), time.Minute)
	seg := says(1000, 84, nil)
	seg.Src, seg.Dst = rec.Key.Client, rec.Key.VIP
	other := seg
	other.Src = netip.AddrPortFrom(seg.Src.Addr(), seg.Src.Port()+1)
	a.Heard(rec.Key, other.Append(nil))
	a.Heard(testKey(2), seg.Append(nil))
	a.Heard(rec.Key, nil)
	for range 2 * heardQueue {
		a.Heard(rec.Key, seg.Append(nil)) // never blocks
	}
	if got := <-rd.heard; got != seg || len(rd.heard) != heardQueue-1 {
		t.Errorf("heard %+v and %d more", got, len(rd.heard))
	}
}

func TestRefusalOfRevival(t *testing.T) {
	for _, tc := range []struct {
		err   error
		after time.Duration
		want  string
		final bool
	}{
		{errObject, time.Second, reviveHash, false},
		{errObject, objectLimit + 1, reviveHash, true},
		{errRate, time.Second, reviveFull, false},
		{errStale, 0, reviveLost, true},
		{errPositions, 0, reviveStale, true},
		{errFull, 0, reviveFull, true},
		{errTemplate, 0, reviveHash, true},
	} {
		if got, final := refusal(tc.err, tc.after); got != tc.want || final != tc.final {
			t.Errorf("%v after %v: %s final %t, want %s %t", tc.err, tc.after, got, final, tc.want, tc.final)
		}
	}

}

// TestRevivalIsAsked: what a crash needs is done for services that ask for it, and
// that the kernel allows; sessions of others are served, moved and ended as if
// there were no revival.
func TestRevivalIsAsked(t *testing.T) {
	for _, tc := range []struct {
		mode, revival  string
		acts, observed bool
	}{
		{ModeAct, "", false, false},
		{ModeAct, ReviveOff, false, false},
		{ModeAct, ModeObserve, false, true},
		{ModeAct, ModeAct, true, false},
		{ModeObserve, ModeAct, false, true},
		{ModeObserve, ReviveOff, false, false},
	} {
		name := tc.mode + ", revival " + tc.revival
		a := testAgent(t)
		want := a.view.Load().services[0].Service
		want.Mode, want.Revival = tc.mode, tc.revival
		if err := a.SetServices([]Service{want}); err != nil {
			t.Fatal(err)
		}
		svc := a.view.Load().services[0]
		if svc.revives() != tc.acts {
			t.Errorf("%s: revives %t, want %t", name, svc.revives(), tc.acts)
		}
		if !tc.acts {
			if left := a.openRevival(t.Context(), nil); left != nil || a.revival.opened || a.revival.on() {
				t.Errorf("%s: the kernel was asked for what nobody wants", name)
			}
		}
		a.revival.ready.Store(true) // as if another service had wanted it
		a.quiet.kernel.Store(&silence.Silence{})
		s := &session{key: testKey(1), epoch: 7, svc: svc}
		a.protect(s)
		if (s.changed != nil) != (tc.acts || tc.observed) || s.hastened() != tc.acts || a.mayAsk(s) != tc.acts || s.awaitsBackup() != tc.acts {
			t.Errorf("%s: record %t, silence %t, asked %t, waits %t; want a record %t, and the rest %t",
				name, s.changed != nil, s.hastened(), a.mayAsk(s), s.awaitsBackup(), tc.acts || tc.observed, tc.acts)
		}
		told(t, a, testLink("a"), 1, frame.Record{Key: testKey(1), Epoch: 7, Service: svc.id})
		if got := a.Shadowed(testKey(1)); got != tc.acts {
			t.Errorf("%s: packets wait %t, want %t", name, got, tc.acts)
		}
		claimed, seen := a.replica.take("a", a.mayRevive), revivals(t, a, reviveObserve)
		if (len(claimed) == 1) != tc.acts || (seen == 1) != tc.observed {
			t.Errorf("%s: %d claimed, %v observed; want claimed %t, observed %t", name, len(claimed), seen, tc.acts, tc.observed)
		}
	}
}

// revivals reads how many ended so.
func revivals(t *testing.T, a *Agent, result string) float64 {
	t.Helper()
	families, err := a.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "rhumb_edge_revivals_total" && m.Label[0].GetValue() == result {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}
