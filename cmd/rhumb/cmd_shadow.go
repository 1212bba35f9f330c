package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"rhumb/internal/recording"
	"rhumb/placement"
)

// shadowPlan is what `shadow` was asked to do.
type shadowPlan struct {
	pcap, dnstap, fleet, ours, against, level string
	databases                                 []string
	act                                       bool
	port                                      uint16
	rate                                      float64
	most                                      int
}

func (a *app) shadowCommand() *cobra.Command {
	var p shadowPlan
	cmd := &cobra.Command{
		Use:   "shadow",
		Short: "Tell how many recorded queries we would have answered otherwise, and why",
		Long: `Read queries that a name server of today was asked, from a capture or from
dnstap, answer them by a fleet file (or let a name server of ours answer them), and
compare: with the replies in the recording, or with what the server says now.`,
		Example: "  tcpdump -i any -w asked.pcap udp port 53\n  rhumb shadow --pcap asked.pcap --fleet fleet.yaml --act\n" +
			"  rhumb shadow --dnstap tap.fstrm --fleet fleet.yaml --against 192.0.2.53",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.check(); err != nil {
				return withCode(exitUsage, err)
			}
			return a.shadow(cmd.Context(), &p)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.pcap, "pcap", "", "a capture: pcap or pcapng")
	f.StringVar(&p.dnstap, "dnstap", "", "a dnstap file")
	f.StringVar(&p.fleet, "fleet", "", "answer by this fleet file, to each client as it asked")
	f.StringVar(&p.ours, "ours", "", "let this name server of ours answer instead: ADDR[:PORT]")
	f.StringVar(&p.against, "against", "", "compare with what this server says now, not with the recorded replies: ADDR[:PORT]")
	f.StringVar(&p.level, "level", "any", "with --fleet: the level of the listener that is asked, top or low; any: the one that answers, low first")
	f.StringSliceVar(&p.databases, "geo", nil, "with --fleet: the geo databases of the node file")
	f.BoolVar(&p.act, "act", false, "with --fleet: as if nothing in it observed")
	f.Uint16Var(&p.port, "port", 53, "the servers' port in the capture")
	f.Float64Var(&p.rate, "rate", 500, "ask a server so many questions a second at most")
	f.IntVar(&p.most, "most", 20, "show so many differences")
	return cmd
}

func (p *shadowPlan) check() error {
	switch {
	case (p.pcap == "") == (p.dnstap == ""):
		return errors.New("name a recording: one of --pcap and --dnstap")
	case (p.fleet == "") == (p.ours == ""):
		return errors.New("say who answers for us: one of --fleet and --ours")
	case p.levels() == nil:
		return fmt.Errorf("--level %q is neither top nor low nor any", p.level)
	case p.rate <= 0 || p.rate > 1e6 || p.most < 1:
		return errors.New("--rate is above 0 and at most a million, --most above 0")
	}
	return nil
}

// levels are those to be asked, nil for a word that is unknown.
func (p *shadowPlan) levels() []placement.Level {
	switch p.level {
	case "any":
		return []placement.Level{placement.LowLevel, placement.TopLevel}
	case string(placement.TopLevel), string(placement.LowLevel):
		return []placement.Level{placement.Level(p.level)}
	}
	return nil
}

// answerer answers a recorded query, and says why so if it knows.
type answerer interface {
	answer(ctx context.Context, query []byte, client netip.AddrPort) (reply []byte, why string)
}

// shadow reads, answers, compares and tells.
func (a *app) shadow(ctx context.Context, p *shadowPlan) error {
	file, err := os.Open(p.pcap + p.dnstap)
	if err != nil {
		return withCode(exitNotFound, fmt.Errorf("shadow: %w", err))
	}
	defer file.Close()
	in, err := recording.Open(file)
	if err != nil {
		return withCode(exitUsage, fmt.Errorf("%s: %w", file.Name(), err))
	}
	in.Port = p.port
	pace := time.NewTicker(time.Duration(float64(time.Second) / p.rate))
	defer pace.Stop()
	ours, theirs, err := a.shadowSides(p, pace.C)
	if err != nil {
		return err
	}
	s := newShadowReport(p)
	err = s.run(ctx, in, ours, theirs, p)
	if ctx.Err() != nil {
		return withCode(exitInterrupted, errors.New("interrupted"))
	}
	if err != nil { // what was before the damage counts
		a.say("warning: %s: %v", file.Name(), err)
	}
	s.finish(in.Skipped)
	if s.Queries == 0 {
		return withCode(exitNotFound, fmt.Errorf("shadow: %s holds no DNS query over UDP to port %d (%d packets skipped)", file.Name(), p.port, in.Skipped))
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: s.names(), text: s.write})
}

// shadowSides makes those who answer; theirs is nil where the recording does.
func (a *app) shadowSides(p *shadowPlan, pace <-chan time.Time) (ours, theirs answerer, err error) {
	remoteOf := func(flag, where string) answerer {
		addr, rerr := benchServer(where, 53)
		if rerr != nil {
			err = withCode(exitUsage, fmt.Errorf("%s: %w", flag, rerr))
		}
		return newRemote(addr.String(), pace, 2*time.Second)
	}
	if p.against != "" {
		theirs = remoteOf("--against", p.against)
	}
	if p.ours != "" {
		ours = remoteOf("--ours", p.ours)
	}
	if err != nil || p.fleet == "" {
		return ours, theirs, err
	}
	r, err := newRehearsal(p.fleet, p.databases, p.levels(), p.act, a)
	return r, theirs, err
}

// shadowReport is the document that --output json prints.
type shadowReport struct {
	Queries    int     `json:"queries"`    // in the recording
	Compared   int     `json:"compared"`   // both sides had something to compare
	Differing  int     `json:"differing"`  // of those
	Share      float64 `json:"share"`      // of the compared ones
	Unanswered int     `json:"unanswered"` // without a recorded reply
	Uncut      int     `json:"truncated"`  // only one side was truncated
	Skipped    int     `json:"skipped"`    // packets that are no whole DNS message
	// Kinds says how many differ in which way, Top shows the most frequent ones.
	Kinds map[string]int `json:"kinds"`
	Top   []*shadowGroup `json:"differences"`

	mu     sync.Mutex // of all counts, while they are taken
	groups map[shadowKey]*shadowGroup
	most   int
	live   bool
}

type shadowKey struct{ name, qtype, kind string }

// shadowGroup is one difference: a question which is answered otherwise in one way. An
// example stands for the others.
type shadowGroup struct {
	Name    string     `json:"name"`
	Type    string     `json:"type"`
	Kind    string     `json:"kind"`
	Queries int        `json:"queries"`
	Client  netip.Addr `json:"client"`
	Subnet  string     `json:"subnet,omitempty"`
	Theirs  string     `json:"theirs"`
	Ours    string     `json:"ours"`
	Why     string     `json:"why,omitempty"`
}

// maxGroups bounds what random names can make of the memory: beyond it they are one.
const maxGroups = 100_000

func newShadowReport(p *shadowPlan) *shadowReport {
	return &shadowReport{Kinds: make(map[string]int), groups: make(map[shadowKey]*shadowGroup), most: p.most, live: p.against != ""}
}

// askersAtOnce is how many questions to servers are open at once: one after the other
// would wait for the network most of the time.
const askersAtOnce = 32

// run compares all exchanges of a recording. Without servers to be asked they are
// compared in their order, so that the same recording gives the same report.
func (s *shadowReport) run(ctx context.Context, in *recording.Reader, ours, theirs answerer, p *shadowPlan) error {
	n := 1
	if p.ours != "" || p.against != "" {
		n = askersAtOnce
	}
	exchanges := make(chan recording.Exchange)
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			for e := range exchanges {
				s.take(ctx, e, ours, theirs)
			}
		})
	}
	err := recording.Pair(in, func(e recording.Exchange) {
		select {
		case exchanges <- e:
		case <-ctx.Done():
		}
	})
	close(exchanges)
	workers.Wait()
	return err
}

// take compares one exchange.
func (s *shadowReport) take(ctx context.Context, e recording.Exchange, ours, theirs answerer) {
	expected := e.Reply
	if theirs != nil {
		expected, _ = theirs.answer(ctx, e.Query, e.Client)
	}
	var got []byte
	var why string
	if theirs != nil || expected != nil {
		got, why = ours.answer(ctx, e.Query, e.Client)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Queries++
	if theirs == nil && expected == nil {
		s.Unanswered++ // lost, or behind the end of the recording: nothing says what was meant
		return
	}
	d, ok := compare(expected, got)
	if !ok {
		s.Uncut++
		return
	}
	if s.Compared++; d.kind != "" {
		s.Differing++
		s.Kinds[d.kind]++
		s.group(e, d, why)
	}
}

// group counts a difference with those like it.
func (s *shadowReport) group(e recording.Exchange, d difference, why string) {
	m := new(dns.Msg)
	k := shadowKey{name: "?", qtype: "?", kind: d.kind}
	if m.Unpack(e.Query) == nil && len(m.Question) == 1 {
		k.name, k.qtype = strings.ToLower(m.Question[0].Name), dns.Type(m.Question[0].Qtype).String()
	}
	if s.groups[k] == nil && len(s.groups) >= maxGroups {
		k.name, k.qtype = "(other names)", "*"
	}
	g := s.groups[k]
	if g == nil {
		g = &shadowGroup{Name: k.name, Type: k.qtype, Kind: k.kind, Client: e.Client.Addr(), Theirs: d.theirs, Ours: d.ours, Why: why}
		if subnet := subnetOf(m); subnet.IsValid() {
			g.Subnet = subnet.String()
		}
		s.groups[k] = g
	}
	g.Queries++
}

// subnetOf is the client subnet of a query; invalid without one.
func subnetOf(m *dns.Msg) netip.Prefix {
	opt := m.IsEdns0()
	if opt == nil {
		return netip.Prefix{}
	}
	for _, o := range opt.Option {
		if s, ok := o.(*dns.EDNS0_SUBNET); ok {
			if a, ok := netip.AddrFromSlice(s.Address); ok {
				return netip.PrefixFrom(a.Unmap(), int(s.SourceNetmask))
			}
		}
	}
	return netip.Prefix{}
}

// finish sorts what was found, the most frequent first.
func (s *shadowReport) finish(skipped int) {
	s.Skipped = skipped
	if s.Compared > 0 {
		s.Share = float64(s.Differing) / float64(s.Compared)
	}
	s.Top = make([]*shadowGroup, 0, len(s.groups))
	for _, g := range s.groups {
		s.Top = append(s.Top, g)
	}
	slices.SortFunc(s.Top, func(a, b *shadowGroup) int {
		if a.Queries != b.Queries {
			return b.Queries - a.Queries
		}
		return strings.Compare(a.Name+" "+a.Type+" "+a.Kind, b.Name+" "+b.Type+" "+b.Kind)
	})
	s.Top = s.Top[:min(len(s.Top), s.most)]
}

func (s *shadowReport) names() (out []string) {
	for _, g := range s.Top {
		out = append(out, g.Name)
	}
	return out
}

// write prints the report for people.
func (s *shadowReport) write(w io.Writer, st style) {
	with := "the recorded replies"
	if s.live {
		with = "what the server says now"
	}
	fmt.Fprintf(w, "queries   %d recorded, %d compared with %s", s.Queries, s.Compared, with)
	if s.Unanswered > 0 {
		fmt.Fprintf(w, "; %d without a recorded reply", s.Unanswered)
	}
	if s.Uncut > 0 {
		fmt.Fprintf(w, "; %d truncated on one side, or no message", s.Uncut)
	}
	fmt.Fprintln(w)
	if s.Skipped > 0 {
		fmt.Fprintf(w, "skipped   %d packets: not UDP to or from the servers' port, fragments, cut off\n", s.Skipped)
	}
	share := fmt.Sprintf("%d of %d (%.3f %%)", s.Differing, s.Compared, 100*s.Share)
	if s.Differing > 0 {
		share = st.paint(yellow, share)
	}
	fmt.Fprintf(w, "otherwise %s%s\n", share, s.kindsText())
	for i, g := range s.Top {
		fmt.Fprintf(w, "\n%d %s\n", i+1, oneLine(fmt.Sprintf("%s %s  %s, %d queries", g.Name, g.Type, g.Kind, g.Queries)))
		who := g.Client.String()
		if g.Subnet != "" {
			who += " for " + g.Subnet
		}
		lines := [][2]string{{"to", who}, {"theirs", g.Theirs}, {"ours", g.Ours}}
		if g.Why != "" {
			lines = append(lines, [2]string{"why", g.Why})
		}
		for _, l := range lines {
			fmt.Fprintf(w, "  %-7s %s\n", l[0], oneLine(l[1]))
		}
	}
}

// kindsText lists how many differ in which way.
func (s *shadowReport) kindsText() string {
	var out []string
	for _, k := range []string{differsSilence, differsRcode, differsReferral, differsAnswer, differsAA, differsTTL} {
		if n := s.Kinds[k]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", k, n))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ": " + strings.Join(out, ", ")
}
