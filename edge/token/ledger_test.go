package token

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func claim(from, to uint64) Question {
	return Question{Session: Session{1}, From: from, Epoch: to, Client: Client{1}, Began: noon.Add(time.Hour), Nonce: to}
}

func TestLedger(t *testing.T) {
	foreign := func(from, to uint64) Question {
		q := claim(from, to)
		q.Client = Client{}
		return q
	}
	earlier := func(from, to uint64) Question {
		q := claim(from, to)
		q.Began = noon.Add(-time.Hour)
		return q
	}
	late := Life + Skew + time.Second
	for _, c := range []struct {
		name  string
		given []Question // granted at noon
		ask   Question
		after time.Duration
		want  Vote
	}{
		{name: "first claim", ask: claim(1, 2), want: Granted},
		{name: "next epoch", given: []Question{claim(1, 2)}, ask: claim(2, 3), want: Granted},
		{name: "an epoch missed here", given: []Question{claim(1, 2)}, ask: claim(5, 6), want: Granted},
		{name: "stale", given: []Question{claim(1, 2), claim(2, 3)}, ask: claim(1, 2), want: Stale},
		{name: "stale, and boasting", given: []Question{claim(1, 2), claim(2, 3)}, ask: claim(1, 9), want: Stale},
		{name: "the same claim twice", given: []Question{claim(1, 2)}, ask: claim(1, 2), want: Stale},
		{name: "the same client, answer unseen", given: []Question{claim(1, 2)}, ask: claim(1, 3), want: Granted},
		{name: "a stranger after it", given: []Question{claim(1, 2)}, ask: foreign(1, 3), want: Stale},
		{name: "a stranger after a stranger", given: []Question{foreign(1, 2)}, ask: foreign(1, 3), want: Stale},
		{name: "touch", given: []Question{claim(1, 2)}, ask: claim(2, 2), want: Granted},
		{name: "touch of one who lost", given: []Question{claim(1, 2)}, ask: claim(1, 1), want: Stale},
		{name: "touch teaches", given: []Question{claim(4, 4)}, ask: claim(3, 4), want: Stale},
		{name: "claim after its touch, answer unseen", given: []Question{claim(1, 2), claim(2, 2)}, ask: claim(1, 3), want: Granted},
		{name: "a session from before", ask: earlier(1, 2), want: Abstained},
		{name: "a session from before, long after", ask: earlier(1, 2), after: late, want: Granted},
		{name: "a session from before, touched since", given: []Question{}, ask: earlier(2, 2), want: Abstained},
		{name: "forgotten in time", given: []Question{claim(1, 2)}, ask: claim(1, 2), after: late, want: Granted},
		{name: "not forgotten too early", given: []Question{claim(1, 2)}, ask: claim(1, 2), after: late - time.Second, want: Stale},
	} {
		l := NewLedger(noon, 10)
		for _, q := range c.given {
			if v := l.Vote(q, noon); v != Granted {
				t.Errorf("%s: %d→%d was %s", c.name, q.From, q.Epoch, v)
			}
		}
		now := noon.Add(c.after)
		l.Forget(now)
		if got := l.Vote(c.ask, now); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestLedgerDoubtful: what was claimed since a restart is known, though not whether it
// was the newest: what is older is refused, and nothing is granted before all tokens of
// earlier claims have expired.
func TestLedgerDoubtful(t *testing.T) {
	asked := func(from, to uint64) Question {
		q := claim(from, to)
		q.Began, q.Client = noon.Add(-time.Hour), Client{}
		return q
	}
	l, now := NewLedger(noon, 10), noon
	for _, c := range []struct {
		name  string
		ask   Question
		after time.Duration
		want  Vote
	}{
		{"first", asked(3, 4), 0, Abstained},
		{"the same token again", asked(3, 5), 0, Stale},
		{"its primary", asked(4, 4), time.Minute, Abstained},
		{"next", asked(4, 5), 0, Abstained},
		{"older", asked(4, 6), 0, Stale},
		{"one that it has forgotten", asked(8, 9), 0, Abstained},
		{"what it took for the newest", asked(5, 6), 0, Stale},
		{"when all has expired", asked(9, 10), Life + Skew, Granted},
	} {
		now = now.Add(c.after)
		if got := l.Vote(c.ask, now); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	l = NewLedger(noon, 10)
	l.Vote(asked(3, 4), noon)
	l.Release(asked(3, 4))
	if v := l.Vote(asked(3, 4), noon); v != Abstained {
		t.Errorf("after a release: %s, want %s", v, Abstained)
	}
}

func TestLedgerRelease(t *testing.T) {
	l := NewLedger(noon, 10)
	stranger := func(from, to uint64) Question {
		q := claim(from, to)
		q.Client = Client{}
		return q
	}
	l.Vote(stranger(1, 2), noon)
	l.Release(stranger(1, 2))
	if v := l.Vote(stranger(1, 2), noon); v != Granted {
		t.Errorf("after a release: %s", v)
	}
	l.Vote(stranger(2, 3), noon)
	l.Release(stranger(1, 2)) // late
	other := stranger(2, 3)
	other.Nonce++
	l.Release(other) // another site lost against the same epoch
	if v := l.Vote(stranger(1, 2), noon); v != Stale {
		t.Errorf("after a late release: %s", v)
	}
	if v := l.Vote(stranger(2, 4), noon); v != Stale {
		t.Errorf("after the release of another claim: %s", v)
	}
	l.Vote(claim(3, 3), noon)
	l.Release(stranger(2, 3))
	if v := l.Vote(stranger(2, 3), noon); v != Stale {
		t.Errorf("after a release of what a primary has touched: %s", v)
	}
}

// TestLedgerFull: it abstains about what it has no room for, and drops nothing.
func TestLedgerFull(t *testing.T) {
	l := NewLedger(noon, 1)
	other := claim(1, 2)
	other.Session = Session{2}
	if v := l.Vote(claim(1, 2), noon); v != Granted {
		t.Fatal(v)
	}
	if v := l.Vote(other, noon); v != Abstained {
		t.Errorf("without room: %s", v)
	}
	if v := l.Vote(claim(1, 2), noon); v != Stale {
		t.Errorf("the one it has: %s", v)
	}
	l.Forget(noon.Add(Life + Skew + time.Second))
	if l.Len() != 0 {
		t.Errorf("%d sessions after their tokens", l.Len())
	}
}

func TestLedgerDoubt(t *testing.T) {
	l := NewLedger(noon, 10)
	q := claim(1, 2)
	l.Doubt(q.Began.Add(time.Minute))
	if v := l.Vote(q, q.Began.Add(2*time.Minute)); v != Abstained {
		t.Errorf("a session from before the list of sites changed: %s", v)
	}
}

func TestCount(t *testing.T) {
	for _, c := range []struct {
		votes   []Vote
		keepers int
		want    Verdict
	}{
		{nil, 3, Open},
		{[]Vote{Granted}, 1, Primary},
		{[]Vote{Granted}, 2, Open},
		{[]Vote{Granted, Granted}, 2, Primary},
		{[]Vote{Granted, Abstained}, 2, Open},
		{[]Vote{Granted}, 3, Open},
		{[]Vote{Granted, Granted}, 3, Primary},
		{[]Vote{Abstained, Abstained, Granted}, 3, Open},
		{[]Vote{Granted, Stale, Granted}, 3, Over},
		{[]Vote{Abstained, Stale}, 3, Over},
	} {
		if got := Count(c.votes, c.keepers); got != c.want {
			t.Errorf("%v of %d: %d, want %d", c.votes, c.keepers, got, c.want)
		}
	}
}

// TestKeepers: as many as three, the same at every site whatever the order of its
// list, and few sessions change theirs when a site goes.
func TestKeepers(t *testing.T) {
	sites := []string{"ams1", "fra1", "nyc1", "sin1", "tyo1"}
	moved, counts := 0, map[string]int{}
	for i := range 1000 {
		s := Session{byte(i), byte(i >> 8)}
		got := Keepers(s, sites)
		if len(got) != 3 {
			t.Fatalf("%v", got)
		}
		turned := slices.Clone(sites)
		slices.Reverse(turned)
		if again := Keepers(s, turned); !slices.Equal(got, again) {
			t.Fatalf("%v and %v", got, again)
		}
		for _, site := range got {
			counts[site]++
		}
		if without := Keepers(s, sites[1:]); !slices.Equal(got, without) {
			moved++
		}
	}
	for site, n := range counts {
		if n < 500 || n > 700 {
			t.Errorf("%s keeps %d of 1000, want about 600", site, n)
		}
	}
	if moved != counts["ams1"] {
		t.Errorf("%d sessions changed their keepers, %d had the site which went", moved, counts["ams1"])
	}
	if got := Keepers(Session{}, []string{"b", "a"}); len(got) != 2 {
		t.Errorf("of two sites %v", got)
	}
}

// world plays a group of three keepers, in which messages are lost and processes
// die, and holds the promise: no token of an epoch older than one that a majority
// granted is ever granted by a majority.
type world struct {
	rng     *rand.Rand
	now     time.Time
	keepers [3]*Ledger
	tokens  []held // given to the client and not yet expired
	newest  uint64
	granted int // claims
	stale   int // older tokens that were shown
}

// held is a token, or the primary that gives such.
type held struct {
	epoch   uint64
	expires time.Time
}

// ask reaches a random part of the keepers and counts their votes.
func (w *world) ask(q Question) Verdict {
	var votes []Vote
	for _, k := range w.keepers {
		if w.rng.IntN(4) > 0 {
			votes = append(votes, k.Vote(q, w.now))
		}
	}
	v := Count(votes, len(w.keepers))
	if v != Primary && q.Epoch > q.From {
		for _, k := range w.keepers {
			if w.rng.IntN(3) > 0 {
				k.Release(q)
			}
		}
	}
	return v
}

func (w *world) question(from, to uint64) Question {
	return Question{Session: Session{1}, From: from, Epoch: to, Began: noon, Nonce: w.rng.Uint64()}
}

// claim shows a token, not expired by the slowest clock.
func (w *world) claim() error {
	tok := w.tokens[w.rng.IntN(len(w.tokens))]
	if w.now.After(tok.expires.Add(Skew)) {
		return nil
	}
	to := tok.epoch + 1
	older := tok.epoch < w.newest
	switch w.ask(w.question(tok.epoch, to)) {
	case Primary:
		if older {
			return fmt.Errorf("epoch %d was granted from %d after epoch %d", to, tok.epoch, w.newest)
		}
		w.newest = to
		w.granted++
		w.tokens = append(w.tokens, held{to, w.now.Add(Life)})
	default:
		if older {
			w.stale++
		}
	}
	return nil
}

// touch is the renewal of a primary, which may have lost and not know it. One whose
// last majority is longer ago than its tokens live has ended.
func (w *world) touch() {
	tok := &w.tokens[w.rng.IntN(len(w.tokens))]
	if w.now.Before(tok.expires) && w.ask(w.question(tok.epoch, tok.epoch)) == Primary {
		tok.expires = w.now.Add(Life)
	}
}

func TestStaleIsRefusedModel(t *testing.T) {
	granted, stale := 0, 0
	for seed := range uint64(400) {
		w := &world{rng: rand.New(rand.NewPCG(seed, 1)), now: noon, newest: 1}
		for i := range w.keepers {
			w.keepers[i] = NewLedger(noon.Add(-time.Hour), 100)
		}
		w.tokens = []held{{1, noon.Add(Life)}}
		for step := range 300 {
			w.now = w.now.Add(time.Duration(w.rng.IntN(90)) * time.Second)
			var err error
			switch n := w.rng.IntN(20); {
			case n < 6:
				err = w.claim()
			case n < 17:
				w.touch()
			case n < 18:
				w.keepers[w.rng.IntN(3)] = NewLedger(w.now, 100)
			default:
				w.keepers[w.rng.IntN(3)].Forget(w.now)
			}
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
		granted, stale = granted+w.granted, stale+w.stale
	}
	if granted < 1000 || stale < 1000 {
		t.Errorf("%d claims were granted and %d stale tokens shown: the model shows too little", granted, stale)
	}
}
