package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/store"
)

// LookNow of the fake unit: ams1-a answers at once, as its state says.
func (u *fakeUnit) LookNow(_ context.Context, r placement.LookRequest) (placement.LookRequest, error) {
	r.ID = "l1"
	return r, u.err
}

// lookedAt is a state in which vantages have answered.
func lookedAt(answers ...placement.LookAnswer) *api.State {
	s := unitState()
	s.Looks, s.Looked = []placement.LookRequest{{ID: "l1"}}, answers
	s.Nodes = []placement.Node{{Name: "ams1-a", Site: "ams1", Roles: []string{"health"}}, {Name: "nyc1-a", Site: "nyc1", Roles: []string{"health"}}}
	return s
}

func answerOf(vantage string, found ...placement.State) placement.LookAnswer {
	a := placement.LookAnswer{Request: "l1", Vantage: vantage, Looks: []placement.FreshLook{}}
	for _, f := range found {
		l := placement.FreshLook{Found: f, CheckStatus: placement.CheckStatus{Cluster: placement.ClusterID{Site: vantage[:4], Name: "web"},
			Address: netip.MustParseAddrPort("198.51.100.160:8080"), Check: "web", Kind: "http", State: placement.Up, Result: "ok"}}
		if f == placement.Down {
			l.Result, l.Cause, l.InRow, l.Needed = "refused", "connection refused", 1, 3
		}
		a.Add(l)
	}
	return a
}

// TestChecksNow: what is printed, and the exit code by what was found.
func TestChecksNow(t *testing.T) {
	up, down := answerOf("ams1-a", placement.Up), answerOf("nyc1-a", placement.Down)
	half := answerOf("nyc1-a", placement.Up)
	half.Open = 1
	for name, c := range map[string]struct {
		states []*api.State
		line   []string
		code   int
		want   string
	}{
		"all passed":         {[]*api.State{lookedAt(up, answerOf("nyc1-a", placement.Up))}, nil, exitOK, "ams1/web"},
		"they come in turn":  {[]*api.State{lookedAt(), lookedAt(up, half), lookedAt(up, answerOf("nyc1-a", placement.Up, placement.Up))}, nil, exitOK, "nyc1-a       2 looks"},
		"one failed":         {[]*api.State{lookedAt(up, down)}, nil, exitUnhealthy, "connection refused; 1 of 3 to go down"},
		"one cannot see":     {[]*api.State{lookedAt(up, answerOf("nyc1-a", placement.Unknown))}, nil, exitUnhealthy, "unknown"},
		"one does not speak": {[]*api.State{lookedAt(up)}, []string{"--wait-timeout", "1500ms"}, exitTimeout, "no answer yet from nyc1-a"},
		"nothing to see":     {[]*api.State{lookedAt(answerOf("ams1-a"), answerOf("nyc1-a"))}, nil, exitNotFound, "no check is configured for all sites"},
		"no such site":       {[]*api.State{lookedAt()}, []string{"sin1"}, exitNotFound, "sin1"},
	} {
		t.Run(name, func(t *testing.T) {
			startUnit(t, c.states...)
			code, out, errs := cli(t.Context(), append([]string{"checks", "--now"}, c.line...)...)
			if code != c.code || !strings.Contains(out+errs, c.want) {
				t.Errorf("exit %d, want %d with %q\n%s%s", code, c.code, c.want, out, errs)
			}
		})
	}
	startUnit(t)
	if code, _, errs := cli(t.Context(), "checks", "ams1/web"); code != exitUsage {
		t.Errorf("a cluster without --now: exit %d, %s", code, errs)
	}
}

// TestLookDesk: with a store the request goes there, and every health role that it
// names takes it once; without one the unit's own does, or it says whom to ask.
func TestLookDesk(t *testing.T) {
	u := opsUnit(t)
	u.session = u.store.Session("ams1-a", 0)
	d := newLookDesk(u)
	r := placement.LookRequest{Site: "ams1", Who: "ann", Reason: "new disk", At: time.Now()}
	asked, err := d.LookNow(t.Context(), r)
	if err != nil || asked.ID == "" {
		t.Fatalf("%+v, %v", asked, err)
	}
	if log := toldLog(u); len(log) != 1 || log[0] != "health ams1 ann: looks at ams1 on demand: new disk" {
		t.Errorf("told %q", log)
	}
	var took []string
	d.now = func(r placement.LookRequest, tell func(placement.LookAnswer)) bool {
		took = append(took, r.ID)
		tell(placement.LookAnswer{Request: r.ID, Vantage: "ams1-a", Total: 1})
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for v := range u.store.Follow(ctx) { // as another unit would read it
		if len(v.Looks) > 0 {
			v.Connected = true
			u.views.publish(v)
			break
		}
	}
	for range 2 {
		for _, l := range u.views.view().Looks {
			d.take(l)
		}
	}
	if len(took) != 1 || took[0] != asked.ID {
		t.Errorf("taken %q, want %s once", took, asked.ID)
	}
	r.At = r.At.Add(sameWithin / 2)
	if again, err := d.LookNow(t.Context(), r); err != nil || again.ID != asked.ID || again.Who != "ann" {
		t.Errorf("the same within %v: %+v, %v; want the request that stands", sameWithin, again, err)
	}

	u.views.publish(&store.View{Inventory: u.views.view().Inventory})
	r.At = r.At.Add(time.Minute)
	own, err := d.LookNow(t.Context(), r)
	if looks, looked := d.seen(); err != nil || len(looks) != 1 || len(looked) != 1 || looked[0].Request != own.ID {
		t.Errorf("with the store away: %+v %+v, %v; want an answer of this machine's own", looks, looked, err)
	}
	crowd := make([]placement.LookRequest, looksStand)
	u.views.publish(&store.View{Inventory: u.views.view().Inventory, Looks: crowd, Connected: true})
	if _, err := d.LookNow(t.Context(), placement.LookRequest{Check: "web", At: r.At}); !errors.Is(err, api.ErrBusy) {
		t.Errorf("the %dth at once: %v", looksStand+1, err)
	}
	u.views.publish(&store.View{Inventory: u.views.view().Inventory})
	d.now = nil
	r.Site = "nyc1"
	if _, err := d.LookNow(t.Context(), r); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("no store and no health role: %v", err)
	}
	d.forget(time.Now().Add(time.Hour))
	if looks, _ := d.seen(); len(looks)+len(d.known)+len(d.found) != 0 {
		t.Errorf("kept for ever: %+v %+v %+v", looks, d.known, d.found)
	}
}
