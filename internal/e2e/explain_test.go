//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// crowdSize is how many clients ask each name in each state of the lab.
const crowdSize = 10000

// steeredNames are the lab's names whose answers depend on the client.
func steeredNames() []steeredName {
	return []steeredName{
		{"www.cdn.demo.test", []string{"A", "AAAA"}}, {"site.cdn.demo.test", []string{"AAAA", "A"}},
		{"vod.cdn.demo.test", []string{"A", "AAAA"}}, {"cdn.demo.test", []string{"NS"}},
	}
}

// TestE2EExplainIsTheWire wants what a name server says of an answer to be the
// answer, for a crowd of clients and every steered name: in calm, with a site
// drained, and with a site dead besides.
func TestE2EExplainIsTheWire(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.playResolvers(sites()[0])
	l.checksSeen()
	t.Run("calm", func(t *testing.T) { checkExplain(t, l, sites()[0], 1, nil) })

	l.rhumb("drain", "nyc1", "--reason", "explained", "--for", "30m", "--override", "min-headroom")
	l.await(patience, "nyc1 is out of the answers", func() error { return l.outOfAnswers("nyc1", "drained") })
	t.Run("drained", func(t *testing.T) {
		checkExplain(t, l, sites()[0], 2, map[string]string{"nyc1": "drained by"})
	})

	l.kill("tyo1")
	l.await(patience, "tyo1 is out of the answers", func() error { return l.outOfAnswers("tyo1", "down") })
	l.figuresTell("tyo1")
	t.Run("drained and down", func(t *testing.T) {
		checkExplain(t, l, sites()[0], 3, map[string]string{"nyc1": "drained by", "tyo1": "down"})
	})
}

// playResolvers gives a site's namespace the addresses of the crowd's resolvers.
func (l *lab) playResolvers(site string) {
	l.t.Helper()
	for _, block := range resolverBlocks {
		family := "-4"
		if strings.Contains(block, ":") {
			family = "-6"
		}
		if out, err := l.exec(site, "ip", family, "route", "add", "local", block, "dev", "lo"); err != nil {
			l.t.Fatalf("%v %s", err, out)
		}
	}
}

// explanation is what the tests read of an answer of POST /explain.
type explanation struct {
	Snapshot string `json:"snapshot"`
	Static   bool   `json:"static"`
	Text     string `json:"text"`
	Service  string `json:"service"`
	Trace    struct {
		Chosen     string            `json:"chosen"`
		FailOpen   bool              `json:"fail_open"`
		Candidates []tracedCandidate `json:"candidates"`
	} `json:"trace"`
	Answer struct {
		Addresses   []netip.Addr `json:"addresses"`
		NameServers []string     `json:"name_servers"`
		TTL         float64      `json:"ttl_seconds"`
		Scope       netip.Prefix `json:"scope"`
	} `json:"answer"`
}

type tracedCandidate struct {
	Cluster placement.ClusterID `json:"cluster"`
	Out     string              `json:"out"`
	Reason  string              `json:"reason"`
	Verdict placement.Verdict   `json:"verdict"`

	PerMille int `json:"per_mille"`
}

// explainer asks the API of one unit.
type explainer struct {
	http http.Client
}

func (l *lab) explainer(socket string) *explainer {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(l.dir, socket))
	}
	e := &explainer{http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 16}}}
	l.t.Cleanup(e.http.CloseIdleConnections)
	return e
}

// explain asks about what a question's asker gets.
func (e *explainer) explain(q question) (*explanation, error) {
	req := map[string]string{"name": q.Name, "type": q.Type}
	if q.Client.IsValid() {
		req["client"] = q.Client.String()
	}
	if q.From.IsValid() {
		req["resolver"] = q.From.String()
	}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Post("http://unit/api/v1/explain", "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("explain %s: %s %s", body, resp.Status, text)
	}
	out := &explanation{}
	return out, json.NewDecoder(resp.Body).Decode(out)
}

// outOfAnswers wants every candidate of a site out, for a reason.
func (l *lab) outOfAnswers(site, out string) error {
	e, err := l.explainer(unitSocket(sites()[0], "rhumb-dns")).explain(question{Name: "www.cdn.demo.test", Type: "A", Client: blocks()[l.regionOf(site)]})
	if err != nil {
		return err
	}
	for _, c := range e.Trace.Candidates {
		if c.Cluster.Site == site && c.Out != out {
			return fmt.Errorf("%s/%s is %s: %s", site, c.Cluster.Name, c.Out, c.Reason)
		}
	}
	return nil
}

// chunk is how many questions are put at a time: during a ramp a newer Snapshot
// comes every second, and only answers of one and the same are compared.
const chunk = 4000

// explainWithin ends a comparison that finds no two answers of one Snapshot. It takes 15 s
// on two idle cores.
const explainWithin = 4 * time.Minute

// checkExplain compares, for every question of a crowd, what a site's name server
// sent with what it says it sends. Where a newer Snapshot came between the two,
// both are asked again. Sites named in out are refused everywhere, for that reason.
func checkExplain(t *testing.T, l *lab, site string, seed uint64, out map[string]string) {
	n := l.node(site)
	c := &crowd{Seed: seed, Size: crowdSize, Names: steeredNames(), Server4: n.Addresses[0]}
	c.Server6 = n.Addresses[slices.IndexFunc(n.Addresses, netip.Addr.Is6)]
	qs := c.questions()
	x := &comparison{t: t, out: out, explainer: l.explainer(unitSocket(site, "rhumb-dns")), sites: map[string]int{}, snapshots: map[string]int{}}
	began := time.Now()
	for todo := upTo(len(qs)); len(todo) > 0 && !t.Failed() && time.Since(began) < explainWithin; {
		c.Only = todo[:min(chunk, len(todo))]
		older := x.chunk(l, site, c, qs)
		todo = append(todo[len(c.Only):], older...)
	}
	l.line.eventf("%d explanations in %.1f s, by snapshot %v, by site %v", x.compared, time.Since(began).Seconds(), x.snapshots, x.sites)
	if x.compared != len(qs) {
		t.Errorf("%d of %d answers compared", x.compared, len(qs))
	}
	if len(x.sites) != len(sites())-len(out) {
		t.Errorf("clients were sent to %v", x.sites)
	}
	for name := range out {
		if x.sites[name] > 0 {
			t.Errorf("%d clients were sent to %s", x.sites[name], name)
		}
	}
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// comparison gathers what differs.
type comparison struct {
	t         *testing.T
	explainer *explainer
	out       map[string]string

	mu        sync.Mutex
	compared  int
	older     []int // questions of the present chunk to be asked again
	failed    int
	sites     map[string]int // answers with addresses by site
	snapshots map[string]int
}

// chunk asks some questions on the wire and in the API, and returns those whose
// answers are of two Snapshots.
func (x *comparison) chunk(l *lab, site string, c *crowd, qs []question) []int {
	x.older = nil
	wire := map[int]answer{}
	if err := l.agent(context.Background(), site, order{Crowd: c}, func(e event) {
		if e.Answer != nil {
			wire[e.Answer.Q] = *e.Answer
		}
	}); err != nil {
		x.t.Fatal(err)
	}
	var wg sync.WaitGroup
	next := make(chan int)
	for range 4 {
		wg.Go(func() {
			for i := range next {
				x.one(i, qs[i], wire[i])
			}
		})
	}
	for _, i := range c.Only {
		next <- i
	}
	close(next)
	wg.Wait()
	return x.older
}

func (x *comparison) one(i int, q question, a answer) {
	e, err := x.explainer.explain(q)
	m, wireErr := a.msg()
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case err != nil || wireErr != nil:
		x.fail(q, "%v", errors.Join(err, wireErr))
		return
	case !strings.HasSuffix(nsidOf(m), " "+e.Snapshot):
		x.older = append(x.older, i)
		return
	}
	if said, sent := e.say(), sentText(m); said != sent {
		x.fail(q, "explained %q, sent %q", said, sent)
	}
	switch err := x.reasons(e); {
	case errors.Is(err, errSick):
		x.older = append(x.older, i)
		return
	case err != nil:
		x.fail(q, "%v", err)
	}
	x.compared++
	x.snapshots[e.Snapshot]++
	if site, _, ok := strings.Cut(e.Trace.Chosen, "/"); ok && q.Type != "NS" {
		x.sites[site]++
	}
}

func (x *comparison) fail(q question, format string, args ...any) {
	if x.failed++; x.failed <= 10 {
		x.t.Errorf("%s %s, client %v, resolver %s: %s", q.Name, q.Type, q.Client, q.From, fmt.Sprintf(format, args...))
	}
}

// errSick is about a site which measures down on a busy machine: it is truly told so,
// and the question is put again when it has recovered.
var errSick = errors.New("measures down")

// reasons wants a word about every site: why it is taken, or why not.
func (x *comparison) reasons(e *explanation) error {
	seen := map[string]bool{}
	for _, c := range e.Trace.Candidates {
		seen[c.Cluster.Site] = true
		chosen := c.Cluster.String() == e.Trace.Chosen
		switch want := x.out[c.Cluster.Site]; {
		case c.Reason == "" || c.Out == "":
			return fmt.Errorf("no reason for %s", c.Cluster.Site)
		case chosen && c.Out != "in":
			return fmt.Errorf("%s is chosen and %s", c.Cluster.Site, c.Out)
		case want != "" && !strings.Contains(want, "down") && strings.HasPrefix(c.Reason, "down: "):
			return fmt.Errorf("%s %w: %s", c.Cluster.Site, errSick, c.Reason)
		case want != "" && !strings.Contains(c.Reason, want):
			return fmt.Errorf("%s is out since %q, want %q", c.Cluster.Site, c.Reason, want)
		}
	}
	if len(seen) != len(sites()) {
		return fmt.Errorf("candidates at %v alone", seen)
	}
	return nil
}

// say is the explained answer in short, as sentText tells the one on the wire.
func (e *explanation) say() string {
	var out []string
	for _, ns := range e.Answer.NameServers {
		site, _, _ := strings.Cut(ns, "/")
		out = append(out, "ns-"+site+".cdn.demo.test.")
	}
	for _, a := range e.Answer.Addresses {
		out = append(out, a.String())
	}
	scope := max(e.Answer.Scope.Bits(), 0)
	return fmt.Sprintf("%s TTL %g scope %d", strings.Join(out, " "), e.Answer.TTL, scope)
}

// sentText is an answer in short: data in order, TTL, scope.
func sentText(m *dns.Msg) string {
	var out []string
	ttl := uint32(0)
	for _, rr := range m.Answer {
		ttl = rr.Header().Ttl
		switch rr := rr.(type) {
		case *dns.NS:
			out = append(out, rr.Ns)
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		default:
			out = append(out, rr.String())
		}
	}
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	return fmt.Sprintf("%s TTL %d scope %d", strings.Join(out, " "), ttl, max(scopeOf(m).Bits(), 0))
}
