package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// testHub is a hub whose document and log a test sets.
type testHub struct {
	*hub
	doc    atomic.Pointer[Document]
	events atomic.Pointer[memoryLog]
}

func newTestHub() *testHub {
	t := &testHub{}
	t.doc.Store(&Document{Sites: []Site{{Name: "ams1", Status: StatusUp}, {Name: "nyc1", Status: StatusUp}}})
	t.events.Store(&memoryLog{})
	m, err := newMetrics(nil)
	if err != nil {
		panic(err)
	}
	t.hub = newHub(func() Document { return *t.doc.Load() },
		func(ctx context.Context, since int64, limit int) ([]placement.Event, error) {
			return t.events.Load().Events(ctx, since, limit)
		}, m)
	return t
}

// waiting returns what is in a client's queue, as topic and data.
func waiting(c *client) (out []string) {
	for {
		select {
		case m, ok := <-c.queue:
			if !ok {
				return append(out, "closed")
			}
			out = append(out, m.topic+" "+string(m.data))
		default:
			return out
		}
	}
}

func TestOneStateThenDifferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.run(ctx) }()
		synctest.Wait()
		c, first := h.join(nil, "")
		if len(first) != 1 || first[0].topic != TopicState || !strings.Contains(string(first[0].data), `"nyc1"`) {
			t.Fatalf("first: %v", first)
		}
		time.Sleep(5 * time.Second)
		if got := waiting(c); len(got) != 0 {
			t.Errorf("nothing has changed, yet: %v", got)
		}
		h.doc.Store(&Document{Sites: []Site{{Name: "ams1", Status: StatusDown}, {Name: "nyc1", Status: StatusUp}}})
		h.notify()
		time.Sleep(hubPause)
		synctest.Wait()
		if got := waiting(c); len(got) != 1 || !strings.HasPrefix(got[0], `site {"name":"ams1"`) {
			t.Errorf("one site changed, got %v", got)
		}
		h.doc.Store(&Document{Sites: []Site{{Name: "ams1", Status: StatusDown}}})
		h.events.Store(&memoryLog{{ID: 5, Text: "nyc1 left"}})
		time.Sleep(2 * hubTick)
		synctest.Wait()
		if got := waiting(c); !slices.Equal(got, []string{`site {"gone":true,"key":"nyc1"}`, `event {"id":5,"at":"0001-01-01T00:00:00Z","kind":"","text":"nyc1 left"}`}) {
			t.Errorf("a site left and an event came, got %v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := waiting(c); !slices.Equal(got, []string{"closed"}) {
			t.Errorf("after the end: %v", got)
		}
	})
}

// TestNothingIsLostInSilence: with no client the log is not asked, and one that
// comes back gets what happened meanwhile, state and events.
func TestNothingIsLostInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub()
		asked := 0
		log := h.hub.log
		h.hub.log = func(ctx context.Context, since int64, limit int) ([]placement.Event, error) {
			asked++
			return log(ctx, since, limit)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if asked != 0 {
			t.Errorf("nobody listens, and the log was asked %d times", asked)
		}
		c, first := h.join(nil, "")
		id := h.id(first[0])
		h.leave(c)
		h.doc.Store(&Document{Sites: []Site{{Name: "ams1", Status: StatusDown}, {Name: "nyc1", Status: StatusUp}}})
		h.events.Store(&memoryLog{{ID: 5, Text: "ams1 fell"}})
		time.Sleep(time.Minute)
		c, missed := h.join(nil, id)
		if len(missed) != 1 || missed[0].topic != TopicSite || !strings.Contains(string(missed[0].data), `"down"`) {
			t.Errorf("missed: %v", missed)
		}
		time.Sleep(hubTick)
		synctest.Wait()
		if got := waiting(c); len(got) != 1 || !strings.Contains(got[0], "ams1 fell") {
			t.Errorf("then: %v", got)
		}
		cancel()
		<-done
	})
}

// TestWhatIsMissedIsSentAgain: for every last ID the messages after it, or a
// reset and the whole state when some are gone for good.
func TestWhatIsMissedIsSentAgain(t *testing.T) {
	h := newTestHub()
	for range 3*ringSize + 7 {
		h.send(TopicSite, []byte("{}"))
	}
	oldest := h.ring[0].seq
	keeper, _ := h.join([]string{TopicBGP}, "") // so that nothing else is sent meanwhile
	defer h.leave(keeper)
	sent := h.seq
	for last := int64(0); last <= sent+1; last++ {
		c, got := h.join(nil, h.id(message{seq: last}))
		h.leave(c)
		if last < oldest-1 || last > sent {
			if len(got) != 2 || got[0].topic != TopicReset || got[1].topic != TopicState || got[1].seq != sent {
				t.Fatalf("after %d: %d messages, want reset and state", last, len(got))
			}
			continue
		}
		if int64(len(got)) != sent-last || len(got) > 0 && got[0].seq != last+1 {
			t.Fatalf("after %d: %d messages, want %d", last, len(got), sent-last)
		}
	}
	if oldest > sent-ringSize+1 {
		t.Errorf("the ring begins at %d of %d", oldest, sent)
	}
	for _, id := range []string{"other-5", "nonsense", h.boot, h.boot + "-x"} {
		if c, got := h.join(nil, id); len(got) != 2 || got[0].topic != TopicReset {
			t.Errorf("ID %q: %v", id, got)
		} else {
			h.leave(c)
		}
	}
}

func TestASlowClientIsDroppedAloneAndCounted(t *testing.T) {
	h := newTestHub()
	slow, _ := h.join(nil, "")
	picky, _ := h.join([]string{TopicBGP}, "")
	for range clientQueue + 1 {
		h.send(TopicSite, []byte("{}"))
	}
	if got := waiting(slow); len(got) != clientQueue+1 || got[clientQueue] != "closed" {
		t.Errorf("%d messages, the last %q", len(got), got[len(got)-1])
	}
	h.send(TopicBGP, []byte("{}"))
	if got := waiting(picky); !slices.Equal(got, []string{"bgp {}"}) {
		t.Errorf("the other got %v", got)
	}
	if len(h.clients) != 1 {
		t.Errorf("%d clients", len(h.clients))
	}
	h.leave(slow) // its handler notices later; nothing may break
}

// TestStreamOnTheWire reads the first bytes, and an ID.
func TestStreamOnTheWire(t *testing.T) {
	s := testServer(t, &fakeOps{})
	w := newPipeWriter()
	r := httptest.NewRequest("GET", "http://localhost/api/v1/stream?topics=site", nil)
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), callerKey{}, caller{role: roleRead}))
	done := make(chan struct{})
	go func() { defer close(done); s.Handler().ServeHTTP(w, r.WithContext(ctx)) }()
	var got []string
	for line := range w.lines {
		got = append(got, line)
		if strings.HasPrefix(line, "data: ") {
			break
		}
	}
	cancel()
	<-done
	want := []string{": rhumb", "retry: 1000", "event: state", "id: " + s.hub.id(message{seq: s.hub.seq})}
	if len(got) != 5 || !slices.Equal(got[:4], want) {
		t.Fatalf("%.200q", got)
	}
	var doc Document
	if err := json.Unmarshal([]byte(strings.TrimPrefix(got[4], "data: ")), &doc); err != nil || len(doc.Sites) != 3 || doc.Status.Snapshot.Name != "1042.17" {
		t.Errorf("%v: %+v", err, doc.Status)
	}
	if w := as(s, caller{role: roleRead}, "GET", "/api/v1/stream?topics=weather", ""); w.Code != 400 {
		t.Errorf("an unknown topic: %d", w.Code)
	}
}

// pipeWriter hands each line over as it is written, but for empty ones at the end.
type pipeWriter struct {
	*httptest.ResponseRecorder
	lines chan string
}

func newPipeWriter() *pipeWriter {
	return &pipeWriter{ResponseRecorder: httptest.NewRecorder(), lines: make(chan string, 100)}
}

func (p *pipeWriter) Write(b []byte) (int, error) {
	in := bufio.NewScanner(strings.NewReader(strings.TrimSuffix(string(b), "\n")))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		p.lines <- in.Text()
	}
	return len(b), nil
}
