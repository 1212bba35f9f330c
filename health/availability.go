package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// ServiceUse is a service and every cluster that may serve it, at all sites.
type ServiceUse struct {
	Name     string
	Clusters []placement.ClusterID
}

// ServicesOf lists what the figures of availability count as services.
func ServicesOf(inv *placement.Inventory) []ServiceUse {
	var out []ServiceUse
	for i := range inv.Services {
		s := &inv.Services[i]
		use := ServiceUse{Name: s.Name}
		for k := range inv.Sites {
			site := &inv.Sites[k]
			if len(s.Sites) > 0 && !slices.Contains(s.Sites, site.Name) {
				continue
			}
			for _, c := range site.Clusters {
				if slices.Contains(s.Clusters, c.Name) {
					use.Clusters = append(use.Clusters, placement.ClusterID{Site: site.Name, Name: c.Name})
				}
			}
		}
		out = append(out, use)
	}
	return out
}

// figureKey names an account.
type figureKey struct {
	figure placement.Figure
	name   string
}

func (k figureKey) compare(o figureKey) int {
	return cmp.Or(strings.Compare(string(k.figure), string(o.figure)), strings.Compare(k.name, o.name))
}

// reading is how many of something are watched now, and how many of them fail.
type reading struct {
	figureKey
	watched, failing int
}

// ledger adds up time by what was read at the end of each step of it. It belongs to
// one goroutine.
type ledger struct {
	at       time.Time
	accounts map[figureKey]*placement.Availability
}

// longestStep bounds what is taken for watched between two readings: a process that
// was stopped for an hour watched nothing in it.
const longestStep = 10 * time.Second

// advance books the time since the last call; told gets each part of it.
func (l *ledger) advance(now time.Time, readings []reading, told func(k figureKey, ok, failed float64)) {
	step := min(max(now.Sub(l.at), 0), longestStep).Seconds()
	if l.at.IsZero() {
		step = 0
	}
	l.at = now
	next := make(map[figureKey]*placement.Availability, len(readings))
	for _, r := range readings {
		a := l.accounts[r.figureKey]
		if a == nil {
			a = &placement.Availability{Figure: r.figure, Name: r.name}
		}
		if next[r.figureKey] = a; r.watched == 0 {
			continue
		}
		a.Seconds += step * float64(r.watched)
		a.Failed += step * float64(r.failing)
		a.Failing = r.failing > 0
		told(r.figureKey, step*float64(r.watched-r.failing), step*float64(r.failing))
	}
	l.accounts = next
}

// list returns the accounts in order, those that were ever watched.
func (l *ledger) list() []placement.Availability {
	var out []placement.Availability
	for _, k := range slices.SortedFunc(maps.Keys(l.accounts), figureKey.compare) {
		if a := l.accounts[k]; a.Seconds > 0 {
			out = append(out, *a)
		}
	}
	return out
}

// failing counts the addresses that are known, and those whose last two looks failed.
func (c *cluster) failing() (known, failing int) {
	for i := range c.addresses {
		f, k := c.addresses[i].failing(&c.rule)
		if k {
			known++
		}
		if f {
			failing++
		}
	}
	return known, failing
}

// readings are the three figures as this vantage sees them now.
func (a *Agent) readings() []reading {
	var out []reading
	all, bad := 0, 0
	for id, c := range a.clusters {
		known, failing := c.failing()
		out = append(out, reading{figureKey{placement.ServerFigure, id.String()}, known, failing})
		all, bad = all+known, bad+failing
	}
	out = append(out, one(placement.SiteFigure, a.cfg.Site, all > 0, bad == all))
	sites := make(map[string]bool)
	for _, site := range a.sites {
		if v, ok := a.ballot.own[placement.SiteID(site)]; !sites[site] {
			sites[site] = true
			out = append(out, one(placement.SiteFigure, site, ok && v.State != placement.Unknown && !v.Hold, v.State == placement.Down))
		}
	}
	if uses := a.services.Load(); uses != nil {
		for _, u := range *uses {
			out = append(out, a.serviceReading(u))
		}
	}
	return out
}

func one(f placement.Figure, name string, known, failing bool) reading {
	r := reading{figureKey: figureKey{f, name}}
	if known {
		r.watched = 1
		if failing {
			r.failing = 1
		}
	}
	return r
}

// serviceReading is failing only if every cluster is known to fail.
func (a *Agent) serviceReading(u ServiceUse) reading {
	anyKnown, allFail := false, len(u.Clusters) > 0
	for _, id := range u.Clusters {
		known, failing := a.clusterSeen(id)
		anyKnown = anyKnown || known
		allFail = allFail && failing
	}
	return one(placement.ServiceFigure, u.Name, anyKnown, allFail)
}

// clusterSeen is what this vantage knows of a cluster: by its own looks, or by the
// votes of the cluster's own site, or by that site's silence.
func (a *Agent) clusterSeen(id placement.ClusterID) (known, failing bool) {
	if c := a.clusters[id]; c != nil {
		k, f := c.failing()
		return k > 0, k > 0 && f == len(c.addresses)
	}
	if v, ok := a.ballot.own[placement.SiteID(id.Site)]; ok && v.State == placement.Down && !v.Hold {
		return true, true
	}
	votes, down := 0, 0
	for k, v := range a.ballot.heard {
		if k.object == id && v.Own() && !v.Hold {
			votes++
			if v.State == placement.Down {
				down++
			}
		}
	}
	return votes > 0, votes > 0 && votes == down
}

// accountEvery is how often time is booked and the report made anew.
const accountEvery = time.Second

// account books the time that has passed and makes the report.
func (a *Agent) account(now time.Time) {
	if now.Sub(a.ledger.at) < accountEvery {
		return
	}
	a.ledger.advance(now, a.readings(), func(k figureKey, ok, failed float64) {
		a.m.available.WithLabelValues(string(k.figure), k.name, "ok").Add(ok)
		a.m.available.WithLabelValues(string(k.figure), k.name, "failed").Add(failed)
	})
	a.certificates(now)
	r := a.findings()
	r.Availability = a.ledger.list()
	a.report.Store(r)
}

// certificates sets what is left of the certificate that ends first, of every check
// that sees one.
func (a *Agent) certificates(now time.Time) {
	type seen struct{ cluster, check string }
	ends := make(map[seen]time.Time)
	for id, c := range a.clusters {
		for i := range c.addresses {
			for k := range c.addresses[i].parts {
				p := &c.addresses[i].parts[k]
				key := seen{id.Name, p.check.Name}
				if e := p.last.Expires; !e.IsZero() && (ends[key].IsZero() || e.Before(ends[key])) {
					ends[key] = e
				}
			}
		}
	}
	for key, e := range ends {
		a.m.certificate.WithLabelValues(a.cfg.Site, key.cluster, key.check).Set(e.Sub(now).Seconds())
	}
}

// Report is what this role found, at most a second or so old; nil before the first
// look. Any goroutine may call it.
func (a *Agent) Report() *placement.HealthStats { return a.report.Load() }

// SetServices says which services the figures of availability count. Any goroutine
// may call it.
func (a *Agent) SetServices(uses []ServiceUse) { a.services.Store(&uses) }

// findings lists the looks, worst first.
func (a *Agent) findings() *placement.HealthStats {
	r := &placement.HealthStats{}
	for id, c := range a.clusters {
		if !c.passive.at.IsZero() {
			r.Checks = append(r.Checks, c.passive.status(id, a.ledger.at))
		}
		for i := range c.addresses {
			ad := &c.addresses[i]
			for k := range ad.parts {
				if p := &ad.parts[k]; p.looks > 0 {
					r.Checks = append(r.Checks, p.status(id, ad))
				}
			}
		}
	}
	r.Total = len(r.Checks)
	slices.SortFunc(r.Checks, compareFindings)
	return r
}

func (p *part) status(id placement.ClusterID, a *address) placement.CheckStatus {
	l := &p.last
	return placement.CheckStatus{Cluster: id, Address: a.addr, Check: p.check.Name, Kind: p.check.Kind(), State: p.damp.state, Evidence: p.check.Evidence(), Blind: l.State == placement.Unknown,
		Result: l.Kind, Cause: l.Cause, Bytes: l.Bytes, At: l.At.UTC(), Expires: l.Expires.UTC(),
		ConnectMS: ms(l.Connect), HandshakeMS: ms(l.Handshake), FirstMS: ms(l.First), TookMS: ms(l.Took)}
}

// status shows what clients met as if it were a check; it belongs to no address.
func (p *passive) status(id placement.ClusterID, now time.Time) placement.CheckStatus {
	out := placement.CheckStatus{Cluster: id, Check: "clients", Kind: "clients", State: placement.Up, Evidence: true, Result: "ok", At: p.at.UTC()}
	if p.bad(now) {
		out.State, out.Result, out.Cause = placement.Down, "errors", fmt.Sprintf("%d errors in a row: %s", p.run, p.cause)
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// compareFindings puts first what somebody should look at.
func compareFindings(a, b placement.CheckStatus) int {
	return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), a.Cluster.Compare(b.Cluster), a.Address.Compare(b.Address), strings.Compare(a.Check, b.Check))
}
