package health

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

func TestReadEncounter(t *testing.T) {
	for in, ok := range map[string]bool{
		`{"cluster":"web","errors":5,"cause":"502"}`: true, `{"cluster":"web"}`: true, `{"cluster":"web","more":1}`: true,
		`{"errors":5}`: false, `{"cluster":"web","errors":-1}`: false, `{"cluster":"web","errors":"5"}`: false, ``: false, `[]`: false, `{"cluster":`: false,
	} {
		if _, err := readEncounter([]byte(in)); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
	e, err := readEncounter([]byte(`{"cluster":"web","errors":99999999,"cause":"` + strings.Repeat("x", 400) + `"}`))
	if err != nil || e.Errors > 1000 || len(e.Cause) > causeLimit {
		t.Errorf("%+v, %v", e, err)
	}
}

func FuzzReadEncounter(f *testing.F) {
	f.Add([]byte(`{"cluster":"web","errors":5,"cause":"502"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := readEncounter(b); err == nil && (e.Cluster == "" || e.Errors < 0) {
			t.Errorf("%+v", e)
		}
	})
}

// TestEvidenceSocket: what comes over the socket reaches the agent's cluster; what is
// not understood reaches nobody, and a socket left behind is replaced.
func TestEvidenceSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evidence.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := watching(1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewEvidence(path, a.Meet, quiet()).Run(ctx) }()
	var conn net.Conn
	for end := time.Now().Add(10 * time.Second); conn == nil; {
		var err error
		if conn, err = net.Dial("unixgram", path); err != nil && time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer conn.Close()
	for _, s := range []string{"nonsense", `{"cluster":"gone","errors":9}`, `{"cluster":"web","errors":3,"cause":"502"}`, `{"cluster":"web","errors":2,"cause":"502"}`} {
		if _, err := conn.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(100, 0)
	for range 3 {
		select {
		case e := <-a.met:
			a.meet(e, now)
		case <-time.After(time.Minute):
			t.Fatal("a report did not arrive")
		}
	}
	web := a.clusters[placement.ClusterID{Site: "ams1", Name: "web"}]
	if !web.passive.bad(now) || web.passive.run != 5 || web.passive.cause != "502" {
		t.Errorf("%+v", web.passive)
	}
	a.ledger.at = now
	if r := a.findings(); len(r.Checks) != 1 || r.Checks[0].State != placement.Down || !r.Checks[0].Evidence || !strings.Contains(r.Checks[0].Cause, "5 errors in a row: 502") {
		t.Errorf("shown as %+v", r.Checks)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", st.Mode())
	}
	for range 200 {
		a.Meet(Encounter{Cluster: "web"}) // nobody reads; nobody waits
	}
}

// TestEvidenceHastens: a server that breaks in the middle of a long interval is down
// at once when its clients say so; one that answers looks stays up whatever they say.
func TestEvidenceHastens(t *testing.T) {
	for name, broken := range map[string]bool{"broken": true, "well": false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBox()
			a := New(Config{Node: "ams1-a", Site: "ams1", Sink: b.put, Log: quiet()})
			a.link = idleLink()
			tg := Target{Object: placement.ClusterID{Site: "ams1", Name: "web"}, Address: addrOf(0), Check: placement.Check{Name: "web", Rise: 3, Fall: 3, Every: placement.Duration(time.Hour)}}
			var down atomic.Bool
			results := make(chan look)
			ctx, cancel := context.WithCancel(t.Context())
			s := newScheduler(ctx, results, 1, func(*placement.Check) Prober {
				return func(context.Context, Target) Result { return look1(!down.Load()) }
			})
			a.take(s, inputs{probes: []Probe{{Object: tg.Object, Targets: []Target{tg}}}})
			done := make(chan struct{})
			go func() { defer close(done); a.loop(ctx, s, results, nil) }()
			time.Sleep(10 * time.Minute)
			down.Store(broken)
			for range 2 {
				a.Meet(Encounter{Cluster: "web", Errors: 3, Cause: "502"})
			}
			time.Sleep(time.Second)
			synctest.Wait()
			last := b.votes[len(b.votes)-1]
			if want := map[bool]placement.State{true: placement.Down, false: placement.Up}[broken]; last.State != want {
				t.Errorf("%s: %+v, want %v", name, last, want)
			}
			cancel()
			<-done
			s.wait()
		})
	}
}
