package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"
)

// benchPlan is what `bench` was asked to do.
type benchPlan struct {
	names, zone, qtype, subnet string
	count                      int
	tcp, tls, quic             bool
	https                      string // the path; "": not over HTTPS
	sockets, outstanding       int
	rate                       float64
	duration, patience         time.Duration
	seed                       uint64
}

func (a *app) benchCommand() *cobra.Command {
	var p benchPlan
	cmd := &cobra.Command{
		Use:   "bench ADDR[:PORT]",
		Short: "Ask a name server as fast as it answers, or at a rate, and tell how long it took",
		Long: "Ask a name server as fast as it answers, with a fixed number of queries open at once (closed loop),\n" +
			"or at a rate, whatever it answers (open loop: latency counts from when a query was due).\n" +
			"Only for servers of your own: to anybody else it is an attack.",
		Example: "  rhumb bench 127.0.0.1:5300 --zone demo.test --count 1000\n  rhumb bench 192.0.2.53 --names queries.txt --rate 10000 --subnet 198.51.100.0/22",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			return a.bench(cmd.Context(), words[0], &p)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.names, "names", "", "file of lines NAME [TYPE], asked in random order; - is standard input")
	f.StringVar(&p.zone, "zone", "", "instead of --names: names h0, h1, … of this zone")
	f.IntVar(&p.count, "count", 1000, "how many names of --zone")
	f.StringVar(&p.qtype, "type", "A", "type where a line names none")
	f.StringVar(&p.subnet, "subnet", "", "send a client subnet with each query: a random /24 (IPv6: /56) of this prefix")
	f.BoolVar(&p.tcp, "tcp", false, "ask over TCP, pipelined")
	f.BoolVar(&p.tls, "tls", false, "ask over TLS, pipelined; any certificate is trusted, as with --https and --quic")
	f.StringVar(&p.https, "https", "", "ask over HTTP/2 at this path ("+dohPath+")")
	f.Lookup("https").NoOptDefVal = dohPath
	f.BoolVar(&p.quic, "quic", false, "ask over QUIC")
	f.IntVar(&p.sockets, "sockets", 4, "ask from so many ports, or connections")
	f.IntVar(&p.outstanding, "outstanding", 64, "closed loop: queries open at once, all sockets together")
	f.Float64Var(&p.rate, "rate", 0, "open loop: queries a second; 0 is a closed loop")
	f.DurationVar(&p.duration, "duration", 10*time.Second, "how long to ask")
	f.DurationVar(&p.patience, "patience", 2*time.Second, "a query without a reply for so long is lost")
	f.Uint64Var(&p.seed, "seed", 1, "the order of names and subnets")
	return cmd
}

func (a *app) bench(ctx context.Context, where string, p *benchPlan) error {
	server, err := benchServer(where, p.port())
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return withCode(exitUsage, err)
	}
	q, err := a.benchQueries(p)
	if err != nil {
		return withCode(exitUsage, err)
	}
	r, err := a.runBench(ctx, server, p, q)
	if err != nil {
		return withCode(exitUnreachable, fmt.Errorf("bench %s: %w", server, err))
	}
	if r.Answered == 0 && ctx.Err() == nil {
		return withCode(exitUnreachable, fmt.Errorf("bench %s: no reply to %d queries", server, r.Sent))
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: []string{r.Server}, text: r.write})
}

// benchServer reads the address, with a port where it names none. Names are not looked
// up: that is not what is measured.
func benchServer(s string, port uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, port), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("%q is neither ADDR nor ADDR:PORT", s)
	}
	return a, nil
}

// transports are those that were named.
func (p *benchPlan) transports() (all []string) {
	for _, t := range []struct {
		name  string
		named bool
	}{{"tcp", p.tcp}, {"tls", p.tls}, {"https", p.https != ""}, {"quic", p.quic}} {
		if t.named {
			all = append(all, t.name)
		}
	}
	return all
}

// transport names what is asked over.
func (p *benchPlan) transport() string { return append(p.transports(), "udp")[0] }

// port is where a server is asked if no other one is named.
func (p *benchPlan) port() uint16 {
	switch p.transport() {
	case "tls", "quic":
		return 853
	case "https":
		return 443
	}
	return 53
}

// runs is how a lane asks a server.
func (p *benchPlan) runs(l *lane, server netip.AddrPort) func(context.Context) error {
	switch p.transport() {
	case "tcp":
		return func(ctx context.Context) error { return l.overTCP(ctx, server, nil) }
	case "tls":
		e := ednsWords{tls: true}
		return func(ctx context.Context) error { return l.overTCP(ctx, server, e.tlsConfig()) }
	case "https":
		return func(ctx context.Context) error { return l.overHTTPS(ctx, server, p.https) }
	case "quic":
		return func(ctx context.Context) error { return l.overQUIC(ctx, server) }
	}
	return func(ctx context.Context) error { return l.runUDP(ctx, server) }
}

func (p *benchPlan) check() error {
	switch {
	case len(p.transports()) > 1:
		return fmt.Errorf("--%s are two transports", strings.Join(p.transports()[:2], " and --"))
	case p.https != "" && p.https[0] != '/':
		return fmt.Errorf("--https=%s: want a path, which begins with a slash", p.https)
	case (p.names == "") == (p.zone == ""):
		return errors.New("say what to ask: one of --names and --zone")
	case p.count < 1 || p.sockets < 1 || p.outstanding < 1 || p.duration <= 0 || p.patience <= 0 || p.rate < 0:
		return errors.New("--count, --sockets, --outstanding, --duration and --patience are above 0, --rate is not below")
	case p.outstanding > p.sockets*maxOpen:
		return fmt.Errorf("--outstanding %d is more than %d for each of %d sockets: IDs would run out", p.outstanding, maxOpen, p.sockets)
	case p.rate > 0 && p.rate/float64(p.sockets) > 1e9:
		return errors.New("--rate is above one in a nanosecond")
	}
	return nil
}

// benchQueries packs what is to be asked.
func (a *app) benchQueries(p *benchPlan) (*benchQueries, error) {
	q := &benchQueries{}
	qtype, ok := dns.StringToType[strings.ToUpper(p.qtype)]
	if !ok {
		return nil, fmt.Errorf("--type %q is no type", p.qtype)
	}
	if p.subnet != "" {
		prefix, err := netip.ParsePrefix(p.subnet)
		if err != nil {
			return nil, fmt.Errorf("--subnet %q is no prefix", p.subnet)
		}
		q.subnet = prefix.Masked()
	}
	if p.zone != "" {
		return q, q.generate(p.zone, p.count, qtype)
	}
	in := a.in
	if p.names != "-" {
		f, err := os.Open(p.names)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	if err := readNames(in, qtype, q); err != nil {
		return nil, fmt.Errorf("--names %s: %w", p.names, err)
	}
	if len(q.packed) == 0 {
		return nil, fmt.Errorf("--names %s: no names", p.names)
	}
	return q, nil
}

// lanes divides the work among the sockets.
func (p *benchPlan) lanes(q *benchQueries, began time.Time) []*lane {
	var out []*lane
	n := p.sockets
	if p.rate == 0 {
		n = min(n, p.outstanding)
	}
	for i := range n {
		l := &lane{queries: q, began: began, patience: p.patience, rand: rand.New(rand.NewPCG(p.seed, uint64(i)))}
		l.pace = pace{outstanding: p.outstanding*(i+1)/n - p.outstanding*i/n, end: p.duration}
		if p.rate > 0 {
			l.pace.every = time.Duration(float64(n) / p.rate * 1e9)
			l.pace.first = l.pace.every * time.Duration(i) / time.Duration(n)
		}
		out = append(out, l)
	}
	return out
}

// runBench asks, shows how far it is, and sums up.
func (a *app) runBench(ctx context.Context, server netip.AddrPort, p *benchPlan, q *benchQueries) (*benchReport, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lanes := p.lanes(q, time.Now())
	var group sync.WaitGroup
	for _, l := range lanes {
		group.Go(func() {
			if err := l.run(ctx, p.runs(l, server)); err != nil {
				cancel(err)
			}
		})
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	a.benchProgress(lanes, p, ended)
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return p.report(server, lanes), nil
}

// benchProgress draws a line for people until the bench ends.
func (a *app) benchProgress(lanes []*lane, p *benchPlan, ended <-chan struct{}) {
	if a.global.quiet || !isTerminal(a.err) {
		<-ended
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	st := a.style()
	for {
		select {
		case <-ended:
			fmt.Fprint(a.err, "\r\x1b[K")
			return
		case <-tick.C:
			fmt.Fprint(a.err, "\r"+benchLine(st, lanes, p)+"\x1b[K")
		}
	}
}

// benchLine is the bar, and how many were answered so far.
func benchLine(st style, lanes []*lane, p *benchPlan) string {
	const width = 30
	now, answered := lanes[0].now(), int64(0)
	for _, l := range lanes {
		answered += l.tally.answered.Load()
	}
	full := min(int(width*now/p.duration), width)
	bar := strings.Repeat(st.pick("█", "#"), full) + strings.Repeat(st.pick("░", "."), width-full)
	return fmt.Sprintf("%s %4.1f s of %s  %d answered, %.0f a second", bar, now.Seconds(), p.duration, answered, float64(answered)/now.Seconds())
}

// benchReport is the document that --output json prints.
type benchReport struct {
	Server    string             `json:"server"`
	Transport string             `json:"transport"`
	Loop      string             `json:"loop"`
	Seconds   float64            `json:"seconds"`
	Sent      int64              `json:"sent"`
	Answered  int64              `json:"answered"`
	Lost      int64              `json:"lost"`
	Strays    int64              `json:"strays"` // replies to no open query
	QPS       float64            `json:"qps"`
	Rcodes    map[string]int64   `json:"rcodes"`
	Latency   map[string]float64 `json:"latency_ms"`
	Histogram []latencyBar       `json:"histogram"`
}

// report sums up the lanes. What was open when the user interrupted is not lost.
func (p *benchPlan) report(server netip.AddrPort, lanes []*lane) *benchReport {
	r := &benchReport{Server: server.String(), Transport: p.transport(), Loop: fmt.Sprintf("closed, %d outstanding", p.outstanding),
		Seconds: min(lanes[0].now(), p.duration).Seconds(), Rcodes: map[string]int64{}, Latency: map[string]float64{}}
	if p.rate > 0 {
		r.Loop = fmt.Sprintf("open, %g a second", p.rate)
	}
	var all latencies
	for _, l := range lanes {
		t := &l.tally
		r.Sent += t.sent.Load()
		r.Answered += t.answered.Load()
		r.Lost += t.lost
		r.Strays += t.strays
		for code, n := range t.rcodes {
			if n > 0 {
				r.Rcodes[dns.RcodeToString[code]] += n
			}
		}
		all.merge(&t.latency)
	}
	r.QPS = float64(r.Answered) / r.Seconds
	for name, share := range map[string]float64{"p50": .5, "p90": .9, "p99": .99, "p999": .999} {
		r.Latency[name] = milliseconds(all.quantile(share))
	}
	r.Latency["max"] = milliseconds(all.max)
	r.Histogram = all.bars()
	return r
}

// write prints the report for people.
func (r *benchReport) write(w io.Writer, s style) {
	fmt.Fprintf(w, "server    %s over %s, %s\n", r.Server, r.Transport, r.Loop)
	fmt.Fprintf(w, "queries   %d sent, %d answered in %.1f s: %.0f a second\n", r.Sent, r.Answered, r.Seconds, r.QPS)
	lost := fmt.Sprintf("%d of %d (%.3f %%)", r.Lost, r.Sent, 100*float64(r.Lost)/float64(max(r.Sent, 1)))
	if r.Lost > 0 {
		lost = s.paint(yellow, lost)
	}
	fmt.Fprintf(w, "lost      %s\n", lost)
	var codes []string
	for _, name := range slices.Sorted(maps.Keys(r.Rcodes)) {
		codes = append(codes, fmt.Sprintf("%s %d", name, r.Rcodes[name]))
	}
	fmt.Fprintf(w, "replies   %s\n", strings.Join(codes, ", "))
	fmt.Fprintf(w, "latency   p50 %.3f ms  p90 %.3f ms  p99 %.3f ms  p99.9 %.3f ms  max %.3f ms\n",
		r.Latency["p50"], r.Latency["p90"], r.Latency["p99"], r.Latency["p999"], r.Latency["max"])
	most := int64(1)
	for _, b := range r.Histogram {
		most = max(most, b.Count)
	}
	for _, b := range r.Histogram {
		fmt.Fprintf(w, "%10.3f ms %-40s %d\n", b.Upto, strings.Repeat(s.pick("█", "#"), int(40*b.Count/most)), b.Count)
	}
}
