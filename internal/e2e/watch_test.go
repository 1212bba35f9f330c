//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// poller asks the same questions all the time and keeps every answer.
type poller struct {
	lab  *lab
	qs   []question
	stop func()

	mu      sync.Mutex
	answers []answer
}

// poll starts a poller inside a node. Lanes name the questions in the timeline,
// drawn as the site that is named.
func (l *lab) poll(node string, every time.Duration, lanes []string, qs ...question) *poller {
	l.t.Helper()
	l.owners()
	p := &poller{lab: l, qs: qs}
	p.stop = l.background(node, order{Poll: qs, Every: every}, func(e event) {
		if e.Answer != nil {
			p.add(*e.Answer, lanes)
		}
	})
	return p
}

// pollHost is a poller at the lab's listener on the host.
func (l *lab) pollHost(every time.Duration, lanes []string, qs ...question) *poller {
	l.t.Helper()
	l.owners()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	p := &poller{lab: l, stop: func() { cancel(); wg.Wait() }}
	for i, q := range qs {
		q.Server = l.dns
		p.qs = append(p.qs, q)
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for ctx.Err() == nil {
				if a := q.ask(ctx); ctx.Err() == nil {
					a.Q = i
					p.add(a, lanes)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	l.t.Cleanup(p.stop)
	return p
}

func (p *poller) add(a answer, lanes []string) {
	p.mu.Lock()
	p.answers = append(p.answers, a)
	p.mu.Unlock()
	if a.Q < len(lanes) {
		p.lab.line.set(lanes[a.Q], a.At, p.lab.sitesIn(a))
	}
}

// sitesIn names the sites of an answer's addresses, or why there are none.
func (l *lab) sitesIn(a answer) string {
	m, err := a.msg()
	if err != nil {
		return "silent"
	}
	var out []string
	for _, addr := range addrsOf(m) {
		if s := l.owner[addr]; !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if id := nsidOf(m); len(out) == 0 && id != "" && m.Rcode == dns.RcodeSuccess {
		site, _, _ := strings.Cut(id, " ")
		return site
	}
	if len(out) == 0 {
		return a.text()
	}
	slices.Sort(out)
	return strings.Join(out, "+")
}

// since returns the answers seen from a time on.
func (p *poller) since(at time.Time) []answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.answers[slices.IndexFunc(append(slices.Clone(p.answers), answer{At: time.Now().Add(time.Hour)}), func(a answer) bool { return !a.At.Before(at) }):])
}

// asked is when the question was put.
func (a answer) asked() time.Time { return a.At.Add(-a.Took) }

// unheard are the answers from a time on which did not come and should have: a server
// that is silent is silent to all. A question that was lost while the same server
// answered others, put after it and before it was given up, was lost on the way, or on
// a machine that had no time for its asker; the next one must be answered then.
func (p *poller) unheard(from time.Time) []answer {
	all := p.since(from)
	var out []answer
	for i, a := range all {
		if a.Err == "" {
			continue
		}
		heard := slices.ContainsFunc(all, func(b answer) bool {
			return b.Err == "" && p.qs[b.Q].Server == p.qs[a.Q].Server && b.asked().After(a.asked()) && b.At.Before(a.At)
		})
		next := slices.IndexFunc(all[i+1:], func(b answer) bool { return b.Q == a.Q })
		if !heard || next >= 0 && all[i+1+next].Err != "" {
			out = append(out, a)
		}
	}
	return out
}

// unserved are those who got no addresses from a time on: nothing at all, or another
// answer.
func (p *poller) unserved(from time.Time) []answer {
	out := p.unheard(from)
	for _, a := range p.since(from) {
		if m, err := a.msg(); a.Err == "" && (err != nil || len(addrsOf(m)) == 0) {
			out = append(out, a)
		}
	}
	return out
}

// span is a time during which something was so.
type span struct{ from, to time.Time }

// stalls are the times during which the machine kept bystanders waiting: their questions
// were answered, by a name server of their own region at its own address, but took
// longer than the longest way through the lab and back.
func (w *watchers) stalls(from time.Time) []span {
	var out []span
	for _, site := range sites() { // at the host, the relay may wait for a dead one
		for _, a := range w.servers[site].since(from) {
			if a.Err == "" && a.Took > lossAfter*3/4 {
				out = append(out, span{a.asked(), a.At})
			}
		}
	}
	return out
}

// during tells whether an answer was awaited in one of some times.
func (a answer) during(all []span) bool {
	return slices.ContainsFunc(all, func(s span) bool { return a.asked().Before(s.to) && s.from.Before(a.At) })
}

// lastNaming is the last time from a time on at which an answer named a site.
func (p *poller) lastNaming(site string, from time.Time) (last time.Time, q question) {
	for _, a := range p.since(from) {
		m, err := a.msg()
		if err != nil {
			continue
		}
		for _, addr := range addrsOf(m) {
			if p.lab.owner[addr] == site && a.At.After(last) {
				last, q = a.At, p.qs[a.Q]
			}
		}
	}
	return last, q
}

// route is one route of a node's kernel table.
type route struct {
	Prefix   netip.Prefix
	Via      []netip.Addr
	Protocol string
}

// ipRoute is what `ip -j route` prints.
type ipRoute struct {
	Dst      string    `json:"dst"`
	Gateway  string    `json:"gateway"`
	Via      ipVia     `json:"via"`
	Protocol string    `json:"protocol"`
	Nexthops []ipRoute `json:"nexthops"`
}

type ipVia struct {
	Host string `json:"host"`
}

// fib reads the routes to a prefix in a node's kernel.
func (l *lab) fib(node string, prefix netip.Prefix) ([]route, error) {
	family := "-4"
	if prefix.Addr().Is6() {
		family = "-6"
	}
	text, err := l.exec(node, "ip", "-j", family, "route", "show", "to", "exact", prefix.String())
	if err != nil {
		return nil, err
	}
	var all []ipRoute
	if err := json.Unmarshal([]byte(text), &all); err != nil && strings.TrimSpace(text) != "" {
		return nil, fmt.Errorf("ip route: %w: %s", err, text)
	}
	var out []route
	for _, r := range all {
		out = append(out, route{Prefix: prefix, Via: r.hops(), Protocol: r.Protocol})
	}
	return out, nil
}

func (r ipRoute) hops() []netip.Addr {
	var out []netip.Addr
	for _, text := range []string{r.Gateway, r.Via.Host} {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a)
		}
	}
	for _, n := range r.Nexthops {
		out = append(out, n.hops()...)
	}
	return out
}

// routeWatch follows the kernel's routes of a node.
type routeWatch struct {
	mu      sync.Mutex
	before  map[netip.Prefix]bool // routed when the watch began, of the drawn ones
	changes []routeChange
}

// watchFIB follows a node's routes; changes of the named prefixes are drawn.
func (l *lab) watchFIB(node string, prefixes ...netip.Prefix) *routeWatch {
	l.t.Helper()
	w := &routeWatch{}
	ready := make(chan struct{})
	l.background(node, order{FIB: true}, func(e event) {
		if e.Ready {
			close(ready)
		}
		if e.Route == nil {
			return
		}
		w.mu.Lock()
		w.changes = append(w.changes, *e.Route)
		w.mu.Unlock()
		if slices.Contains(prefixes, e.Route.Prefix) {
			l.line.set("fib "+node+" "+e.Route.Prefix.String(), e.Route.At, e.Route.state())
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		l.t.Fatalf("no route watcher in %s", node)
	}
	return w
}

func (c routeChange) state() string {
	if c.Gone {
		return "none"
	}
	return "via " + joinAddrs(c.Via)
}
