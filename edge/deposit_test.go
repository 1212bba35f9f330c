package edge

import (
	"testing"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/reserve"
)

// deposited stores a deposit as its owner's frame does.
func deposited(t *testing.T, a *Agent, l *link, seq uint64, rec frame.Record) []frame.Frame {
	t.Helper()
	a.replica.handle(l, frame.Frame{Type: frame.Deposit, Seq: seq, Key: rec.Key, Epoch: rec.Epoch,
		Generation: rec.Generation, Payload: frame.AppendRecord(nil, rec)})
	return l.sent(t)
}

// TestDepositIsKept: what is kept beyond the room there is takes none, is not taken over when
// its owner is lost, is told to the owner's next process, and becomes a record as any other
// when there is room. It is refused where no record more can be kept.
func TestDepositIsKept(t *testing.T) {
	a, l := testAgent(t), testLink("a")
	a.limits.Records = 3
	a.SetReserve(Reserve{Capacity: 2}) // 1 at most
	a.replica.balance(time.Now())
	told(t, a, l, 1, frame.Record{Key: testKey(0), Epoch: 7})
	for i := range 2 {
		if answers := deposited(t, a, l, uint64(2+i), frame.Record{Key: testKey(1 + i), Epoch: 7}); len(answers) != 1 || answers[0].Type != frame.Ack {
			t.Fatalf("deposit %d: %+v", i, answers)
		}
	}
	if answers := deposited(t, a, l, 4, frame.Record{Key: testKey(3), Epoch: 7}); answers[0].Type != frame.Full || string(answers[0].Payload) != refuseRecords {
		t.Errorf("beyond what can be kept: %+v", answers)
	}
	if r := a.Reserved(); r.Most != 1 || a.replica.has(testKey(1)) || a.replica.owner(testKey(1)) != "a" {
		t.Errorf("%+v; would be revived: %t", r, a.replica.has(testKey(1)))
	}
	svc := a.view.Load().services[0].id
	deposited(t, a, l, 5, frame.Record{Key: testKey(1), Epoch: 7, Service: svc})
	told(t, a, l, 6, frame.Record{Key: testKey(0), Epoch: 7, Service: svc})
	if n := a.replica.needs("a", time.Now()); n.sessions() != 1 {
		t.Errorf("%d sessions would come", n.sessions())
	}
	if all := a.replica.recall("a"); len(all) != 3 {
		t.Errorf("%d recalled, want all", len(all))
	}
	if counts := a.replica.expire(time.Now()); counts[copies{"a", false}] != 1 || counts[copies{"a", true}] != 2 {
		t.Errorf("counted %v", counts)
	}
	// The owner asks for more than there is: it stays, and says what is new.
	answers := told(t, a, l, 7, frame.Record{Key: testKey(1), Epoch: 8, RcvNxt: 99})
	if answers[0].Type != frame.Full || string(answers[0].Payload) != refuseRoom || a.replica.has(testKey(1)) || a.replica.store[testKey(1)].rec.RcvNxt != 99 {
		t.Errorf("without room: %+v, kept %+v", answers, a.replica.store[testKey(1)].rec)
	}
	if taken := a.replica.take("a", func(frame.Record) bool { return true }); len(taken) != 1 || taken[0].rec.Key != testKey(0) {
		t.Errorf("taken over %+v", taken)
	}
	if answers := told(t, a, l, 8, frame.Record{Key: testKey(1), Epoch: 8}); answers[0].Type != frame.Ack || !a.replica.has(testKey(1)) || a.Reserved().Most != 1 {
		t.Errorf("with room: %+v, %+v", answers, a.Reserved())
	}
	if answers := deposited(t, a, l, 9, frame.Record{Key: testKey(1), Epoch: 8}); answers[0].Type != frame.Ack || a.replica.has(testKey(1)) || a.Reserved().Most != 0 {
		t.Errorf("given back: %+v, %+v", answers, a.Reserved())
	}
}

// nothing lets both Backups refuse a session, and returns what the one that was asked for a
// deposit was told.
func nothing(t *testing.T, a *Agent, s *session, links map[string]*link) (keeper string, deposit frame.Frame) {
	t.Helper()
	for _, l := range links {
		l.deposits.Store(true)
	}
	order := rendezvous(s.key, a.view.Load().peers)
	a.replica.tell(t.Context(), s, time.Now())
	refuses(t, a, links[order[0].Name], refuseRoom)
	refuses(t, a, links[order[1].Name], refuseRoom)
	a.replica.out.flush()
	for name, l := range links {
		for _, f := range l.frames(t) {
			if f.Type != frame.Deposit || keeper != "" {
				t.Fatalf("%s was told %+v", name, f)
			}
			keeper, deposit = name, f
		}
	}
	return keeper, deposit
}

// TestDeposit: a session that nobody has room for is kept by one site for a next process. A
// response waits for that. It is no Backup, and it ends when there is one.
func TestDeposit(t *testing.T) {
	a, s, links := backed(t)
	keeper, deposit := nothing(t, a, s, links)
	if keeper == "" || len(s.backups()) > 0 || s.mayKeep(keeper) || s.turn.Load().fresh.kept() || !s.kept() {
		t.Fatalf("%q keeps it, its Backups are %v", keeper, s.backups())
	}
	a.replica.handle(links[keeper], frame.Frame{Type: frame.Ack, Seq: deposit.Seq})
	if !s.turn.Load().fresh.kept() {
		t.Error("a response waits for more")
	}
	now := time.Now()
	a.replica.sweep(t.Context(), now)
	if r := a.Reserved(); r.Bare != 1 || r.Recall != 1 || a.Sessions()[0].Recall != keeper || a.Sessions()[0].Backup != "" {
		t.Errorf("%+v, listed as %+v", r, a.Sessions()[0])
	}
	now = now.Add(3 * time.Second) // the doors are open again
	a.replica.sweep(t.Context(), now)
	backup := s.backups()
	if len(backup) != 1 || a.Sessions()[0].Recall != "" {
		t.Fatalf("its Backups are %v", backup)
	}
	a.replica.sweep(t.Context(), now.Add(settle))
	a.replica.out.flush()
	var ended int
	for _, f := range links[keeper].frames(t) {
		if f.Type == frame.Retire {
			ended++
		}
	}
	if other := backup[0] != keeper; s.deposit.Load() != nil || (ended == 1) != other {
		t.Errorf("the Backup is %s, the deposit was at %s, which was told %d ends", backup[0], keeper, ended)
	}
	if r := a.Reserved(); r.Bare != 0 || r.Recall != 0 {
		t.Errorf("%+v", r)
	}
}

// TestDepositGoesOn: one that is refused goes to the next site; an earlier version is not
// asked; and an upload is not kept so.
func TestDepositGoesOn(t *testing.T) {
	a, s, links := backed(t)
	keeper, deposit := nothing(t, a, s, links)
	other := map[string]string{"a": "c", "c": "a"}[keeper]
	refuse := func(l *link, f frame.Frame) {
		a.replica.handle(l, frame.Frame{Type: frame.Full, Key: f.Key, Seq: f.Seq, Payload: []byte(refuseRecords)})
		a.replica.next(t.Context(), <-a.replica.full)
		a.replica.out.flush()
	}
	refuse(links[keeper], deposit)
	told := links[other].frames(t)
	if len(told) != 1 || told[0].Type != frame.Deposit || s.turn.Load().fresh.kept() || len(links[keeper].out) > 0 {
		t.Fatalf("the other site was told %+v", told)
	}
	links[other].deposits.Store(false)
	refuse(links[other], told[0])
	if s.kept() || !s.turn.Load().fresh.kept() {
		t.Error("nobody keeps it, and its response waits")
	}
	links[other].deposits.Store(true)
	now := time.Now().Add(time.Minute)
	up := &turn{rec: s.turn.Load().rec}
	up.rec.Flags |= frame.Upload
	s.turn.Store(up)
	a.replica.doors.Refused("a", now)
	a.replica.doors.Refused("c", now)
	a.replica.sweep(t.Context(), now)
	a.replica.out.flush()
	if s.kept() || len(links[keeper].out)+len(links[other].out) > 0 {
		t.Error("an upload is kept for a next process, which lacks what was uploaded")
	}
}

// TestNewTurnEndsADeposit: what it says is over before the Backup has answered.
func TestNewTurnEndsADeposit(t *testing.T) {
	a, s, links := backed(t)
	keeper, _ := nothing(t, a, s, links)
	now := time.Now().Add(3 * time.Second)
	s.turn.Store(idleTurn(s.svc.id))
	a.replica.doors = reserve.Doors{}
	a.replica.doors.Refused(keeper, now)
	a.replica.tell(t.Context(), s, now)
	if b := s.backups(); len(b) != 1 || b[0] == keeper {
		t.Fatalf("its Backups are %v", b)
	}
	a.replica.out.flush()
	if told := links[keeper].frames(t); s.deposit.Load() != nil || len(told) != 1 || told[0].Type != frame.Retire {
		t.Errorf("the site with the deposit was told %+v", told)
	}
}
