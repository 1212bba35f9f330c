package health

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/health/detect"
	"rhumb/placement"
)

// TestLedger: time is booked by what is read at the end of each step; a pause of the
// process is not watched time, and what is not watched has no figure.
func TestLedger(t *testing.T) {
	var l ledger
	k := figureKey{placement.ServerFigure, "ams1/web"}
	told := map[string]float64{}
	step := func(sec, watched, failing int) {
		l.advance(time.Unix(int64(sec), 0), []reading{{k, watched, failing}, {figureKey{placement.SiteFigure, "nyc1"}, 0, 0}}, func(k figureKey, ok, failed float64) {
			told["ok"] += ok
			told["failed"] += failed
		})
	}
	step(100, 4, 4) // the first reading has no step before it
	step(101, 4, 0)
	step(102, 4, 1)
	step(104, 4, 2)
	step(50, 4, 4) // a clock that ran back
	step(51, 0, 0)
	step(52, 2, 0)
	step(4000, 2, 2) // an hour's pause counts as longestStep
	want := placement.Availability{Figure: placement.ServerFigure, Name: "ams1/web", Seconds: 4 + 4 + 8 + 2 + 20, Failed: 1 + 4 + 20, Failing: true}
	if have := l.list(); len(have) != 1 || have[0] != want {
		t.Errorf("have %+v, want %+v", have, want)
	}
	if told["ok"]+told["failed"] != want.Seconds || told["failed"] != want.Failed {
		t.Errorf("told %v", told)
	}
	if p := want.Part(); math.Abs(p-(1-25./38)) > 1e-9 || (&placement.Availability{}).Part() != 1 {
		t.Errorf("part %v", p)
	}
	l.advance(time.Unix(4001, 0), nil, nil)
	if len(l.list()) != 0 {
		t.Error("what is no longer there has a figure")
	}
}

// idleLink is a link that nobody runs.
func idleLink() *detect.Link {
	link, err := detect.NewLink(detect.LinkConfig{Node: 1, Incarnation: 1, Times: detect.Defaults(defaultInterval)})
	if err != nil {
		panic(err)
	}
	return link
}

// watching is an agent of ams1 with clusters of servers, and of a service at two sites.
func watching(servers int) *Agent {
	a := New(Config{Node: "ams1-a", Site: "ams1", Sink: func(placement.Vote) {}, Log: quiet(), Metric: prometheus.NewRegistry()})
	a.link = idleLink()
	c := someCluster(servers, 1, 3)
	a.clusters[c.object] = c
	a.setPeers([]Peer{{Site: "nyc1", NodeID: 2, Keys: [][32]byte{{1}}}})
	a.SetServices([]ServiceUse{{Name: "www", Clusters: []placement.ClusterID{{Site: "ams1", Name: "web"}, {Site: "nyc1", Name: "web"}}}})
	return a
}

func (a *Agent) seenNow() map[string]string {
	out := make(map[string]string)
	for _, r := range a.readings() {
		out[string(r.figure)+" "+r.name] = fmt.Sprintf("%d/%d", r.failing, r.watched)
	}
	return out
}

// TestThreeFigures: a server's failure is no site's, and a site's is no service's.
// One error is none; two in a row are a failure, whatever the damper waits for.
func TestThreeFigures(t *testing.T) {
	a := watching(2)
	web := a.clusters[placement.ClusterID{Site: "ams1", Name: "web"}]
	vote := func(object placement.ClusterID, site string, s placement.State) {
		v := placement.Vote{Object: object, Vantage: site + "-a", Site: site, State: s}
		if site == "ams1" {
			a.ballot.own[object] = v
			return
		}
		a.ballot.heard[heardKey{v.Vantage, object}] = v
	}
	far := placement.ClusterID{Site: "nyc1", Name: "web"}
	for i, step := range []struct {
		do                    func()
		server, site, service string
		other                 string
	}{
		{func() {}, "0/0", "0/0", "0/0", "0/0"},
		{func() { web.feed(addrOf(0), "", look1(true)); web.feed(addrOf(1), "", look1(true)) }, "0/2", "0/1", "0/1", "0/0"},
		{func() { vote(placement.SiteID("nyc1"), "ams1", placement.Up); vote(far, "nyc1", placement.Up) }, "0/2", "0/1", "0/1", "0/1"},
		{func() { web.feed(addrOf(0), "", look1(false)) }, "0/2", "0/1", "0/1", "0/1"},
		{func() { web.feed(addrOf(0), "", look1(false)) }, "1/2", "0/1", "0/1", "0/1"},
		{func() { web.feed(addrOf(1), "", look1(false)); web.feed(addrOf(1), "", look1(false)) }, "2/2", "1/1", "0/1", "0/1"},
		{func() { vote(far, "nyc1", placement.Down) }, "2/2", "1/1", "1/1", "0/1"},
		{func() { web.feed(addrOf(1), "", look1(true)) }, "1/2", "0/1", "0/1", "0/1"},
		{func() { vote(placement.SiteID("nyc1"), "ams1", placement.Down) }, "1/2", "0/1", "0/1", "1/1"},
		{func() { web.feed(addrOf(1), "", look1(false)); web.feed(addrOf(1), "", look1(false)) }, "2/2", "1/1", "1/1", "1/1"},
		{func() { web.feed(addrOf(0), "", look1(true)) }, "1/2", "0/1", "0/1", "1/1"},
	} {
		step.do()
		have := a.seenNow()
		for key, want := range map[string]string{"server ams1/web": step.server, "site ams1": step.site, "site nyc1": step.other, "service www": step.service} {
			if have[key] != want {
				t.Errorf("step %d: %s is %s, want %s (failing/watched)", i, key, have[key], want)
			}
		}
	}
}

// TestServicesOf: every cluster that may serve, and no other.
func TestServicesOf(t *testing.T) {
	inv := &placement.Inventory{}
	inv.Sites = []placement.Site{{Name: "ams1", Clusters: []placement.Cluster{{Name: "api"}, {Name: "web"}}}, {Name: "nyc1", Clusters: []placement.Cluster{{Name: "web"}}}}
	inv.Services = []placement.Service{{Name: "all", Clusters: []string{"web"}}, {Name: "one", Clusters: []string{"web"}, Sites: []string{"nyc1"}}}
	if have := fmt.Sprint(ServicesOf(inv)); have != "[{all [ams1/web nyc1/web]} {one [nyc1/web]}]" {
		t.Error(have)
	}
}

// TestReport: what stands in a record, the failed first and no more than fits.
func TestReport(t *testing.T) {
	a := watching(placement.CheckRows + 10)
	c := a.clusters[placement.ClusterID{Site: "ams1", Name: "web"}]
	c.rule = Rule{Check: &placement.Check{Name: "web", HTTP: &placement.HTTPCheck{}}}
	for i := range c.addresses {
		c.addresses[i].parts[0].check = c.rule.Check
		c.addresses[i].parts[0].check.Name = "web"
		r := look1(i != 20)
		r.Phases = Phases{Connect: 1500 * time.Microsecond, Took: 3 * time.Millisecond}
		r.Expires = time.Unix(5000+int64(i), 0)
		for range 3 {
			c.feed(addrOf(i), "web", r)
		}
	}
	a.account(time.Unix(1000, 0))
	a.account(time.Unix(1000, 5e8)) // too soon
	a.account(time.Unix(1001, 0))
	r := a.Report()
	if short := r.Short(); r.Total != placement.CheckRows+10 || len(r.Checks) != r.Total || short.Total != r.Total || len(short.Checks) != placement.CheckRows || short.Checks[0] != r.Checks[0] {
		t.Fatalf("%d of %d rows, %d in a record", len(r.Checks), r.Total, len(short.Checks))
	}
	worst := r.Checks[0]
	if worst.State != placement.Down || worst.Address != addrOf(20) || worst.Result != "refused" || worst.Cause != "refused" || worst.ConnectMS != 1.5 || worst.TookMS != 3 || worst.Kind != "http" {
		t.Errorf("first row %+v", worst)
	}
	if len(r.Availability) != 3 || r.Availability[0].Figure != placement.ServerFigure || r.Availability[0].Failed != 1 || r.Availability[0].Seconds != float64(placement.CheckRows+10) {
		t.Errorf("%+v", r.Availability)
	}
	if v := gauge(t, a.cfg.Metric.(*prometheus.Registry), "rhumb_health_certificate_seconds"); v != 3999 {
		t.Errorf("%v s left, want 3999: the one that ends first", v)
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.Metric) > 0 {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
