package edge

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/content"
	"rhumb/edge/frame"
)

// rehearsal is an agent of site b with its preparation running, and what that tells.
type rehearsal struct {
	*Agent
	t    *testing.T
	told chan Preparation
}

func rehearse(t *testing.T, change func(*Service)) *rehearsal {
	t.Helper()
	a := testAgent(t)
	if change != nil {
		s := a.view.Load().services[0].Service
		change(&s)
		if err := a.SetServices([]Service{s}); err != nil {
			t.Fatal(err)
		}
	}
	r := &rehearsal{a, t, make(chan Preparation, 64)}
	a.prep.told = func(p Preparation) { r.told <- p }
	a.revival.ready.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.prep.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		a.wg.Wait()
	})
	return r
}

// next is what is told next.
func (r *rehearsal) next() Preparation {
	r.t.Helper()
	select {
	case p := <-r.told:
		return p
	case <-time.After(30 * time.Second):
		r.t.Fatalf("nothing is told; preparations %+v", r.Preparations())
		return Preparation{}
	}
}

func (r *rehearsal) await(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("no %s; preparations %+v, objects %v", what, r.Preparations(), r.counted("rhumb_edge_prepared_objects_total"))
		}
	}
}

// counted reads a metric by its label beside the site.
func (r *rehearsal) counted(name string) map[string]float64 {
	r.t.Helper()
	families, err := r.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if f.GetName() == name && l.GetName() != "site" {
					out[l.GetValue()] += m.Counter.GetValue() + m.Gauge.GetValue()
				}
			}
		}
	}
	return out
}

// film is a file of so many blocks in a directory, and its object.
func film(t *testing.T, dir string, blocks int) *content.Object {
	t.Helper()
	b := bytes.Repeat([]byte("a film of one line. "), blocks*content.BlockSize/20+1)[:blocks*content.BlockSize]
	name := filepath.Join(dir, "film.mp4")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := content.NewObject(bytes.NewReader(b), int64(len(b)), content.NewCache(1))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// watches tells the agent of a session of site a that is at some block of an object.
func (r *rehearsal) watches(i int, o *content.Object, block uint64) frame.Record {
	return r.watchesA(i, o.Hash(), uint64(o.Size()), block)
}

// watchesA is watches for an object that need not be anywhere.
func (r *rehearsal) watchesA(i int, hash [32]byte, size, block uint64) frame.Record {
	rec := frame.Record{Key: testKey(i), Epoch: 7, Generation: 1, Service: r.view.Load().services[0].id, Status: http.StatusOK, Template: template,
		Object: hash, Size: size, Length: size, Offset: block*content.BlockSize + 100}
	told(r.t, r.Agent, testLink("a"), 1, rec)
	return rec
}

// cached are the blocks of an object in an agent's cache.
func (r *rehearsal) cached(o *content.Object) []int64 { return r.cache.Blocks(o.Hash()) }

// TestPrepare: at a suspicion the blocks next to where the clients are come into the
// cache, and nothing else happens; when it clears nothing is left of it.
func TestPrepare(t *testing.T) {
	r := rehearse(t, nil)
	o := film(t, r.view.Load().services[0].Root, 8)
	r.view.Load().services[0].source.Lookup(t.Context(), "/film.mp4") // as the look at the directory does
	r.watches(1, o, 3)
	r.watches(2, o, 3)
	idle := frame.Record{Key: testKey(3), Epoch: 7, Service: r.view.Load().services[0].id, Flags: frame.Idle}
	told(t, r.Agent, testLink("a"), 1, idle)
	told(t, r.Agent, testLink("c"), 1, frame.Record{Key: testKey(4), Epoch: 7, Service: idle.Service, Object: o.Hash(), Size: uint64(o.Size()), Length: uint64(o.Size())})
	if got := r.cached(o); len(got) != 0 {
		t.Fatalf("blocks %v are cached before any suspicion", got)
	}
	since := time.Now()
	r.SetSuspects([]Suspect{{"a", since}, {"b", since}})
	want := Preparation{Site: "a", Since: since, Sessions: 3, Ready: 3}
	if got := r.next(); got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	if got := r.cached(o); !slices.Equal(got, []int64{2, 3, 4}) {
		t.Errorf("blocks %v are cached, want those next to where two clients are", got)
	}
	if got := r.Preparations(); len(got) != 1 || got[0] != want {
		t.Errorf("preparations %+v, want that of a alone", got)
	}
	r.SetSuspects(nil)
	want.Result = PrepareCleared
	if got := r.next(); got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	if got := r.Preparations(); len(got) != 0 || len(r.counted("rhumb_edge_prepared_sessions")) != 0 {
		t.Errorf("preparations %+v and %v are left", got, r.counted("rhumb_edge_prepared_sessions"))
	}
	if n := len(r.replica.store); n != 4 || len(r.revival.rounds) != 0 || r.tab.len() != 0 || r.prep.blocks != 0 {
		t.Errorf("%d records, %d revivals, %d sessions, %d blocks on account; want 4 and nothing else", n, len(r.revival.rounds), r.tab.len(), r.prep.blocks)
	}
	if got := r.counted("rhumb_edge_suspicions_total"); got[PrepareCleared] != 1 || len(got) != 1 {
		t.Errorf("suspicions %v, want one that was cleared", got)
	}
}

// TestPrepareUntilVerdict: the verdict ends the preparation, whose sessions are then
// revived; a suspicion that stands on begins no other.
func TestPrepareUntilVerdict(t *testing.T) {
	r := rehearse(t, nil)
	o := film(t, r.view.Load().services[0].Root, 2)
	r.view.Load().services[0].source.Lookup(t.Context(), "/film.mp4")
	r.watches(1, o, 0)
	r.SetSuspects([]Suspect{{Site: "a"}})
	if got := r.next(); got.Ready != 1 || got.Result != "" {
		t.Fatalf("told %+v, want one session that is ready", got)
	}
	r.SetDown([]string{"a"})
	if got := r.next(); got.Ready != 1 || got.Result != PrepareVerdict {
		t.Errorf("told %+v, want the verdict", got)
	}
	r.SetSuspects([]Suspect{{Site: "a"}})
	r.SetDown(nil)
	r.SetSuspects(nil)
	r.await("end", func() bool { return len(r.Preparations()) == 0 })
	if got := r.counted("rhumb_edge_suspicions_total"); got[PrepareVerdict] != 1 || len(got) != 1 {
		t.Errorf("suspicions %v, want one, which became a verdict", got)
	}
}

// TestPrepareObserves: where a service, or its revival, only counts, nothing is read.
func TestPrepareObserves(t *testing.T) {
	for name, change := range map[string]func(*Service){
		"service observes": func(s *Service) { s.Mode = ModeObserve },
		"revival observes": func(s *Service) { s.Revival = ModeObserve },
	} {
		r := rehearse(t, change)
		o := film(t, r.view.Load().services[0].Root, 2)
		r.view.Load().services[0].source.Lookup(t.Context(), "/film.mp4")
		r.watches(1, o, 0)
		r.SetSuspects([]Suspect{{Site: "a"}})
		if got := r.next(); got.Observed != 1 || got.Sessions != 0 || len(r.cached(o)) != 0 {
			t.Errorf("%s: told %+v, blocks %v; want one session that is counted", name, got, r.cached(o))
		}
		if got := r.counted("rhumb_edge_prepared_sessions"); got["observed"] != 1 || got["ready"]+got["waiting"] != 0 {
			t.Errorf("%s: sessions %v, want one observed", name, got)
		}
	}
}

// TestPrepareBounds: no more blocks are read than half of the cache has room for, and an
// object that nobody can name is missed, not looked for.
func TestPrepareBounds(t *testing.T) {
	r := rehearse(t, nil)
	o := film(t, r.view.Load().services[0].Root, 12)
	r.view.Load().services[0].source.Lookup(t.Context(), "/film.mp4")
	r.prep.room = 4
	r.watches(1, o, 1)
	r.watches(2, o, 9)
	r.watchesA(3, [32]byte{9}, 5, 0)
	r.SetSuspects([]Suspect{{Site: "a"}})
	if got := r.next(); got.Sessions != 3 || got.Ready != 0 {
		t.Errorf("told %+v, want three sessions, none of them ready", got)
	}
	if got := r.cached(o); !slices.Equal(got, []int64{0, 1, 2, 8}) {
		t.Errorf("blocks %v are cached, want four", got)
	}
	if got := r.counted("rhumb_edge_prepared_objects_total"); got[prepareBound] != 1 || got[prepareMissing] != 1 || len(got) != 2 {
		t.Errorf("objects %v, want one beyond the bound and one missing", got)
	}
}

// TestPrepareFromOrigin: an object that is not here is fetched by the name which its
// owner told. A suspicion that clears while it is on its way ends that, unless somebody
// has come to want it.
func TestPrepareFromOrigin(t *testing.T) {
	o := film(t, t.TempDir(), 2)
	asked, gone, whole := make(chan string, 4), make(chan struct{}, 4), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", "2097152")
		w.Write([]byte("a"))
		w.(http.Flusher).Flush()
		asked <- q.URL.Path
		select {
		case <-whole:
			b, err := o.At(0)
			c, more := o.At(content.BlockSize)
			if err != nil || more != nil {
				t.Error(err, more)
			}
			w.Write(append(slices.Clone(b[1:]), c...))
		case <-q.Context().Done():
			gone <- struct{}{}
		}
	}))
	defer srv.Close()
	r := rehearse(t, func(s *Service) { s.Root, s.Origin, s.Spool = "", srv.URL, t.TempDir() })
	origin := r.view.Load().services[0].source.(*content.Origin)
	rec := r.watches(1, o, 1)
	l := testLink("a")
	r.replica.named(l, frame.Frame{Type: frame.ObjectName, Payload: frame.AppendName(nil, frame.Name{Service: rec.Service, Object: o.Hash(), Name: "/film.mp4"})})
	r.SetSuspects([]Suspect{{Site: "a"}})
	if got := r.next(); got.Ready != 0 || got.Sessions != 1 {
		t.Errorf("told %+v, want a session that is not ready yet", got)
	}
	if got := <-asked; got != "/film.mp4" {
		t.Errorf("the origin was asked for %q", got)
	}
	r.SetSuspects(nil)
	if got := r.next(); got.Result != PrepareCleared {
		t.Errorf("told %+v, want that it was cleared", got)
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Fatal("the copy goes on though nobody wants it")
	}
	r.await("end of the copy", func() bool { return !origin.Coming("/film.mp4") })
	r.SetSuspects([]Suspect{{Site: "a"}})
	r.next()
	<-asked
	if !r.revival.coming(rec) || origin.Coming("/other.mp4") {
		t.Error("what is on its way, and only that, is to be waited for")
	}
	origin.ByHash(o.Hash(), "/film.mp4") // a session that comes needs it
	r.SetSuspects(nil)
	r.next()
	close(whole)
	r.await("object", func() bool { _, ok := origin.ByHash(o.Hash(), ""); return ok && !r.revival.coming(rec) })
	r.SetSuspects([]Suspect{{Site: "a"}})
	r.await("session that is ready", func() bool { p := r.Preparations(); return len(p) == 1 && p[0].Ready == 1 })
	if got := r.cached(o); !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("blocks %v are cached, want both", got)
	}
	select {
	case <-gone:
		t.Error("a copy was ended that a client waits for")
	default:
	}
}

// TestNeedsOfAPlace: which blocks a session will need, by how far and how fast it was.
func TestNeedsOfAPlace(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(start, length, off uint64) stored {
		return stored{rec: frame.Record{Base: 1, Size: 100 * content.BlockSize, Start: start, Length: length, Offset: off}, at: now}
	}
	for name, tc := range map[string]struct {
		st   stored
		pace float64
		age  time.Duration
		want []int64
	}{
		"at the beginning":             {at(0, 100*content.BlockSize, 0), 0, 0, []int64{0, 1}},
		"in the middle":                {at(0, 100*content.BlockSize, 50*content.BlockSize), 0, 0, []int64{49, 50, 51}},
		"at the end":                   {at(0, 100*content.BlockSize, 100*content.BlockSize), 0, 0, []int64{98, 99}},
		"a part":                       {at(20*content.BlockSize, 3, 2), 0, 0, []int64{20}},
		"a part across two":            {at(21*content.BlockSize-2, 4, 0), 0, 0, []int64{20, 21}},
		"five seconds at one a second": {at(0, 100*content.BlockSize, 10*content.BlockSize), content.BlockSize, 5 * time.Second, []int64{14, 15, 16}},
		"never beyond the end":         {at(0, 100*content.BlockSize, 10*content.BlockSize), 1 << 40, time.Hour, []int64{98, 99}},
		"told after the silence began": {at(0, 100*content.BlockSize, 10*content.BlockSize), content.BlockSize, -5 * time.Second, []int64{9, 10, 11}},
	} {
		tc.st.pace = tc.pace
		if got := tc.st.blocks(now.Add(tc.age)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: blocks %v, want %v", name, got, tc.want)
		}
	}
	before, after := at(0, 100, 10), at(0, 100, 50)
	after.at = now.Add(10 * time.Second)
	if got := after.paceSince(before); got != 4 {
		t.Errorf("pace %v, want 4 bytes a second", got)
	}
	before.pace, after.at = 7, now.Add(time.Millisecond)
	if got := after.paceSince(before); got != 7 {
		t.Errorf("two words at once: pace %v, want that of before", got)
	}
	after.rec.Base++
	if got := after.paceSince(before) + after.paceSince(stored{}); got != 0 {
		t.Errorf("another response: pace %v, want 0", got)
	}
}

// TestCrowded: while a site is suspected, the places that its sessions would need are not
// given to sessions that live elsewhere.
func TestCrowded(t *testing.T) {
	r := rehearse(t, nil)
	r.limits.Sessions = 2
	o := film(t, r.view.Load().services[0].Root, 1)
	r.view.Load().services[0].source.Lookup(t.Context(), "/film.mp4")
	r.watches(1, o, 0)
	r.tab.add(&session{key: testKey(9)}, 2)
	if r.prep.crowded() {
		t.Error("crowded without a suspicion")
	}
	r.SetSuspects([]Suspect{{Site: "a"}})
	r.next()
	if !r.prep.crowded() {
		t.Error("the last place is given away though a session may come")
	}
	r.SetSuspects(nil)
	r.next()
	if r.prep.crowded() {
		t.Error("crowded after the suspicion")
	}
}

// TestNamesAreTold: a Backup that reads names hears each once, and again while there
// are records; one that does not hears none.
func TestNamesAreTold(t *testing.T) {
	rec, now := frame.Record{Service: 7, Object: [32]byte{1}}, time.Unix(1000, 0)
	l := testLink("a")
	l.tellName(rec, "/film.mp4", now)
	l.reads.Store(true)
	l.tellName(rec, "/film.mp4", now)
	l.tellName(rec, "/film.mp4", now.Add(nameAgain-1))
	l.tellName(frame.Record{Service: 7}, "/none", now)
	l.tellName(frame.Record{Service: 7, Object: [32]byte{2}}, "", now)
	l.tellName(rec, "/film.mp4", now.Add(nameAgain))
	sent := l.sent(t)
	if len(sent) != 2 {
		t.Fatalf("%d frames, want two", len(sent))
	}
	a := testAgent(t)
	a.replica.named(l, sent[0])
	if got := a.replica.nameOf(objectOf{7, rec.Object}); got != "/film.mp4" {
		t.Errorf("named %q", got)
	}
	o := objectOf{7, rec.Object}
	for i, want := range []string{"/film.mp4", "", "", "/film.mp4"} {
		if got := a.revival.nameFor(o, now.Add(time.Duration(i)*fetchAgain/3)); got != want {
			t.Errorf("attempt %d: looked for by %q, want %q", i, got, want)
		}
	}
	a.replica.expire(time.Now().Add(nameLife + time.Second))
	if got := a.replica.nameOf(objectOf{7, rec.Object}); got != "" {
		t.Errorf("%q is not forgotten", got)
	}
}

// shelf is a source of small objects in memory.
type shelf map[[32]byte]*content.Object

func (s shelf) Lookup(context.Context, string) content.Entry     { return content.Entry{} }
func (s shelf) Ahead(string) (over <-chan struct{}, drop func()) { return nil, func() {} }
func (s shelf) Coming(string) bool                               { return false }
func (s shelf) Run(context.Context) error                        { return nil }
func (s shelf) ByHash(hash [32]byte, _ string) (*content.Object, bool) {
	o, ok := s[hash]
	return o, ok
}

// TestPrepareIsPaced: blocks are read at prepareRate, so that what serves the sessions
// that live here is not disturbed, and no more of them once the suspicion is over; what
// comes while it stands is made ready within a pass.
func TestPrepareIsPaced(t *testing.T) {
	const objects, burst = 240, prepareRate / 10
	for name, tc := range map[string]struct {
		clear time.Duration // after the suspicion
		read  int           // want, of all blocks
		ready int
		took  time.Duration // until that was told
	}{
		"cleared on the way": {100 * time.Millisecond, burst + prepareRate/10, 0, 100 * time.Millisecond},
		"stands":             {10 * time.Second, objects + 1, objects, (objects - burst) * time.Second / prepareRate},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rehearse(t, nil)
				s := shelf{}
				r.prep.room = objects + 1
				r.view.Load().services[0].source = s
				put := func(i int) {
					o, err := content.NewObject(bytes.NewReader([]byte{byte(i), byte(i >> 8)}), 2, r.cache)
					if err != nil {
						t.Fatal(err)
					}
					s[o.Hash()] = o
					r.watches(i, o, 0)
				}
				for i := range objects {
					put(i)
				}
				begun := time.Now()
				r.SetSuspects([]Suspect{{"a", begun}})
				if tc.ready > 0 {
					if got := r.next(); got.Ready != tc.ready {
						t.Errorf("told %+v, want %d ready", got, tc.ready)
					}
					took := time.Since(begun)
					if took < tc.took || took > tc.took+tc.took/4 {
						t.Errorf("took %v, want about %v", took, tc.took)
					}
					put(objects) // the site lives, and has one more session
					time.Sleep(2 * prepareEvery)
					if got := r.Preparations(); len(got) != 1 || got[0].Ready != objects+1 {
						t.Errorf("preparations %+v, want %d ready", got, objects+1)
					}
				}
				time.Sleep(tc.clear - time.Since(begun))
				r.SetSuspects(nil)
				if got := r.next(); got.Result != PrepareCleared {
					t.Errorf("told %+v, want that it was cleared", got)
				}
				time.Sleep(time.Minute)
				read := 0
				for hash := range s {
					read += len(r.cache.Blocks(hash))
				}
				if read < tc.read*9/10 || read > tc.read*11/10 {
					t.Errorf("%d blocks were read, want about %d", read, tc.read)
				}
			})
		})
	}
}
