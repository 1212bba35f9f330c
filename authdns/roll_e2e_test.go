//go:build e2e

package authdns

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
)

// rolled are questions that are asked without end while keys change; %d is another
// name each time, so that there is always something that no cache holds.
var rolled = []string{
	"www.demo.test. A", "www.demo.test. MX", "n%d.demo.test. A", "b.ent.demo.test. A", "x%d.wild.demo.test. A", "x%d.cw.demo.test. A",
	"demo.test. DNSKEY", "demo.test. CDS", "alias.demo.test. A", "cdn.demo.test. DS", "cdn.demo.test. DNSKEY", "cdn.demo.test. NS",
	"www.cdn.demo.test. A", "www.cdn.demo.test. MX", "n%d.cdn.demo.test. A", "x%d.any.cdn.demo.test. A",
}

// The hour for which the keys of these zones are kept is three seconds here: resolvers
// keep nothing for more than one, which they count in whole ones, and the rest is for what
// is on its way. A machine on which an answer is on its way for longer shows doubts that
// are its own.
const (
	shortCache = 1
	forgotten  = (shortCache + 2) * time.Second
)

// watch is what validators are asked, and said, while keys change.
type watch struct {
	resolvers []*resolver
	mu        sync.Mutex
	passes    map[string]int    // how often each of those who ask was through with everything
	last      map[string]string // what each of them waits for, and saw last
	answers   int
	faults    []string
}

// belief is what an answer shows of it: nothing, if there is none, as on a busy
// machine. Whether it was withheld for want of belief is in the resolver's log.
type belief uint8

const (
	unanswered belief = iota
	believing
	doubting
)

// insist asks until there is an answer.
func (v *watch) insist(ctx context.Context, who string, ask func() (string, belief)) {
	for ctx.Err() == nil {
		got, o := ask()
		v.mu.Lock()
		v.last[who] = got
		switch {
		case o == believing:
			v.answers++
		case o == doubting && ctx.Err() == nil:
			v.faults = append(v.faults, who+": "+got)
		}
		v.mu.Unlock()
		if o != unanswered {
			return
		}
		time.Sleep(20 * time.Millisecond) // not to keep from working who is late already
	}
}

// passed counts that somebody was through with everything.
func (v *watch) passed(who string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.passes[who]++
}

// startWatch starts the resolvers and everybody who asks; it ends with the test.
func startWatch(t *testing.T, w *tidy, names ...string) *watch {
	t.Helper()
	v := &watch{passes: make(map[string]int), last: make(map[string]string)}
	root := w.keys["."][0].Public
	dir := t.TempDir()
	more := map[string]string{
		"unbound": fmt.Sprintf("  cache-max-ttl: %d\n  cache-max-negative-ttl: %[1]d\n  infra-host-ttl: 2", shortCache),
		"kresd":   fmt.Sprintf("cache.min_ttl(0)\ncache.max_ttl(%d)\nmodules.load('bogus_log')", shortCache),
	}
	write(t, filepath.Join(dir, "root.key"), root.String()+"\n")
	for _, name := range names {
		v.resolvers = append(v.resolvers, validators[name](t, dir, more[name]))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	for _, r := range v.resolvers {
		for worker := range 2 {
			all.Go(func() { v.askOn(ctx, t, r, worker) })
		}
	}
	all.Go(func() { v.delveOn(ctx, v.resolvers[0], anchorsOf(t, root, dir)) })
	for _, s := range w.nodes {
		all.Go(func() { press(ctx, s.Addrs()[0].String()) })
	}
	return v
}

// askOn asks a resolver everything, again and again.
func (v *watch) askOn(ctx context.Context, t *testing.T, r *resolver, worker int) {
	who := fmt.Sprintf("%s %d", r.name, worker)
	v.joins(who)
	for n := worker; ctx.Err() == nil; n += 2 {
		for _, q := range rolled {
			if strings.Contains(q, "%d") {
				q = fmt.Sprintf(q, n)
			}
			v.insist(ctx, who, func() (string, belief) {
				got := r.verdict(t, q)
				return q + ": " + got, map[string]belief{"NOERROR secure": believing, "NOERROR insecure": doubting}[got[:max(0, strings.LastIndex(got, " "))]]
			})
		}
		v.passed(who)
	}
}

// delveOn validates with nothing remembered: each delv is a new one, and has from the
// resolver what that has kept, of whatever age.
func (v *watch) delveOn(ctx context.Context, r *resolver, anchors string) {
	v.joins("delv")
	for ctx.Err() == nil {
		for _, name := range []string{"www.demo.test.", "www.cdn.demo.test.", "alias.demo.test."} {
			v.insist(ctx, "delv", func() (string, belief) {
				out, _ := exec.CommandContext(ctx, "delv", "@127.0.0.1", "-p", fmt.Sprint(r.addr.Port()), "-a", anchors, "+root=.", name, "A").CombinedOutput()
				switch said := string(out); {
				case strings.Contains(said, "; fully validated"):
					return said, believing
				case strings.Contains(said, "timed out") || strings.Contains(said, "SERVFAIL"):
					return said, unanswered
				default:
					return said, doubting
				}
			})
		}
		v.passed("delv")
	}
}

// joins makes somebody known of whom passes are awaited.
func (v *watch) joins(who string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.passes[who] = 0
}

// press asks a node itself, one query after the other.
func press(ctx context.Context, addr string) {
	c := dns.Client{Timeout: time.Second}
	for n := 0; ctx.Err() == nil; n++ {
		m := new(dns.Msg)
		m.SetQuestion(fmt.Sprintf("p%d.wild.demo.test.", n%1000), dns.TypeA)
		m.SetEdns0(1232, true)
		c.ExchangeContext(ctx, m, addr) // what it says is judged by the validators
	}
}

// everyone waits until all who ask were through with what they were at, and
// then with everything once more: nobody holds on to what was before any longer.
func (v *watch) everyone(t *testing.T, what string) {
	t.Helper()
	v.mu.Lock()
	before := maps.Clone(v.passes)
	v.mu.Unlock()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		v.check(t, what)
		who, last := v.behind(before)
		if who == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s has no answer to believe within two minutes; the last was %s", what, who, last)
		}
	}
}

// behind names somebody who was not through twice since, and what he saw last.
func (v *watch) behind(before map[string]int) (who, last string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if want := 2*len(v.resolvers) + 1; len(v.passes) < want {
		return "somebody", fmt.Sprintf("that %d of %d ask", len(v.passes), want)
	}
	for _, who := range slices.Sorted(maps.Keys(v.passes)) {
		if v.passes[who] < before[who]+2 {
			return who, v.last[who]
		}
	}
	return "", ""
}

// tally says how much was asked.
func (v *watch) tally() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprintf("%d answers, all believed; passes %v", v.answers, v.passes)
}

// check fails the test if anybody ever doubted an answer.
func (v *watch) check(t *testing.T, what string) {
	t.Helper()
	v.mu.Lock()
	faults := slices.Clone(v.faults)
	v.mu.Unlock()
	for _, r := range v.resolvers {
		faults = append(faults, doubts(r.log.String())...)
	}
	if len(faults) > 0 {
		t.Fatalf("%s: want every answer believed; %d were not:\n%s", what, len(faults), strings.Join(faults[:min(5, len(faults))], "\n"))
	}
}

// doubts are the lines of a resolver's log that tell of a bogus answer.
func doubts(log string) (out []string) {
	for line := range strings.Lines(log) {
		if l := strings.ToLower(line); strings.Contains(l, "validation failure") || strings.Contains(l, "bogus") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// rest is an hour in the life of a cache: what is not yet on its way into one
// is asked for, and then all that was kept before is forgotten.
func (v *watch) rest(t *testing.T, what string) {
	t.Helper()
	v.everyone(t, what)
	time.Sleep(forgotten) // a cache tells nobody when it forgets
	v.everyone(t, what)
}

// TestRollUnderLoadWhenSoaking: the keys of demo.test and of the steered zone are all changed, as
// `rhumb zones roll` does it, with nodes that have the new files one after the other and a
// parent that goes by CDS. Validators that keep answers as long as those times allow
// for are asked everything all the while, and never doubt one. Six times, when RHUMB_SOAK
// is set; at any time, that what they might say would be seen.
func TestRollUnderLoadWhenSoaking(t *testing.T) {
	if got := doubts("info: all is well\ninfo: validation failure <www.demo.test. A IN>\n"); len(got) != 1 {
		t.Errorf("doubts %q, want one", got)
	}
	if os.Getenv("RHUMB_SOAK") == "" || !withinNamespace(t) {
		return
	}
	settle(t)
	const times = 6
	names := []string{"unbound", "kresd"}
	w := buildTidy(t, time.Duration(times)*8*time.Hour+2*time.Hour)
	v := startWatch(t, w, names...)
	for range times {
		w.roll(t, v)
	}
	v.check(t, "at the end")
	t.Logf("%s", v.tally())
	w.forge(t, v)
}

// roll changes all keys of both zones.
func (w *tidy) roll(t *testing.T, v *watch) {
	t.Helper()
	r := dnssec.Roll{Spread: time.Hour, ZoneTTL: time.Hour, ParentTTL: time.Hour}
	first := w.keys["demo.test."]
	w.goTo(w.now().Truncate(time.Hour).Add(90 * time.Minute)) // in mid hour, when a roll has least time
	w.change(t, "demo.test.", r.ZSK)
	w.change(t, "demo.test.", r.KSK)
	w.change(t, "cdn.demo.test.", r.KSK)
	w.spread(t, v, "new keys are made")
	w.followCDS(t, v)
	w.change(t, "demo.test.", r.Switch)
	w.change(t, "cdn.demo.test.", r.Switch)
	w.spread(t, v, "the parent knows them")
	v.rest(t, "before they sign")
	for hour := range 6 {
		before := w.stage()
		w.goTo(w.now().Truncate(time.Hour).Add(time.Hour + time.Second))
		changed := w.followCDS(t, v)
		if stage := w.stage(); changed || stage != before {
			v.rest(t, fmt.Sprintf("hour %d, keys %s", hour+1, stage))
		}
	}
	published := w.nodes[0].current.Load().top["demo.test."].zone.RRset("demo.test.", dns.TypeDNSKEY)
	for _, rr := range published {
		if slices.ContainsFunc(first, func(k *dnssec.Key) bool { return k.Tag() == rr.(*dns.DNSKEY).KeyTag() }) || len(published) != 2 {
			t.Fatalf("after the roll demo.test has the keys %v; want two new ones", published)
		}
	}
}

func (w *tidy) change(t *testing.T, zone string, step func([]*dnssec.Key, time.Time) ([]*dnssec.Key, error)) {
	t.Helper()
	next, err := step(w.keys[zone], w.now())
	if err != nil {
		t.Fatal(err)
	}
	w.keys[zone] = next
}

// spread brings the key files to one node, and to the others once everybody has asked.
func (w *tidy) spread(t *testing.T, v *watch, what string) {
	t.Helper()
	w.deliver(t, w.nodes[0])
	v.everyone(t, what+", on one node")
	for _, s := range w.nodes[1:] {
		w.deliver(t, s)
	}
	v.everyone(t, what)
}

// stage says what every key does now.
func (w *tidy) stage() string {
	var out []string
	for _, zone := range []string{"demo.test.", "cdn.demo.test."} {
		for _, k := range w.keys[zone] {
			at := dnssec.HourOf(w.now())
			out = append(out, fmt.Sprintf("%d %s %v", k.Tag(), k.Use(at), k.Times.Synced(at)))
		}
	}
	return strings.Join(out, ", ")
}

// followCDS is the parent: it looks at CDS, which it must believe, and publishes
// what is asked for (RFC 7344 section 6). It tells whether that was anything new.
func (w *tidy) followCDS(t *testing.T, v *watch) bool {
	t.Helper()
	var lines []string
	for _, rr := range w.nodes[0].current.Load().top["demo.test."].zone.RRset("demo.test.", dns.TypeCDS) {
		ds := rr.(*dns.CDS).DS
		ds.Hdr = dns.RR_Header{Name: "demo.test.", Rrtype: dns.TypeDS, Class: dns.ClassINET, Ttl: 300}
		lines = append(lines, ds.String())
	}
	slices.Sort(lines)
	told := strings.Join(lines, "\n") + "\n"
	if told == w.ds {
		return false
	}
	w.ds = told
	v.everyone(t, "the parent looks at CDS")
	w.publish(t, w.tld, w.source("test.", told))
	return true
}

// forge gives demo.test keys that the parent knows nothing of: if that went unnoticed,
// nothing said above would be worth anything.
func (w *tidy) forge(t *testing.T, v *watch) {
	t.Helper()
	w.keys["demo.test."] = keysOf(t, "demo.test.", false)
	for _, s := range w.nodes {
		w.deliver(t, s)
	}
	for _, r := range v.resolvers {
		until(t, r.name+" doubts a forgery", func() (bool, string) {
			log := r.log.String()
			return len(doubts(log)) > 0, tail(log, 5)
		})
	}
}
