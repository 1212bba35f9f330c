package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

func (a *app) explainCommand() *cobra.Command {
	var req api.ExplainRequest
	cmd := &cobra.Command{
		Use:   "explain NAME [TYPE]",
		Short: "Why a client gets the answer it gets",
		Long: `Why a client gets the answer it gets: the name server's own choice, with the
reason of every candidate that was not taken.`,
		Example: "  rhumb explain www.cdn.demo.test --client 203.0.113.67\n  rhumb explain www.cdn.demo.test AAAA --resolver 2001:db8:100::53\n  rhumb explain www.cdn.demo.test --client 203.0.113.67 --at 1042.17",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if req.Client == "" && req.Resolver == "" {
				return withCode(exitUsage, fmt.Errorf("name whom to explain it for: --client IP[/LEN], or --resolver IP"))
			}
			req.Name = given[0]
			if len(given) == 2 {
				req.Type = given[1]
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			var e api.Explanation
			raw, err := c.post(cmd.Context(), "/explain", req, &e)
			if err != nil {
				return err
			}
			return a.show(result{raw: raw, names: []string{e.Text}, text: func(w io.Writer, s style) {
				writeExplanation(w, s, &e, a.global.verbose || s.wide)
			}})
		},
	}
	cmd.Flags().StringVar(&req.Client, "client", "", "the client's address or prefix, as the resolver tells it (ECS)")
	cmd.Flags().StringVar(&req.Resolver, "resolver", "", "the resolver's address; it stands for its users without --client")
	cmd.Flags().StringVar(&req.At, "at", "", "a state of the past, as 1042.17; events and logs name them")
	return cmd
}

// shownCandidates is how many candidates stand in the table without -v.
const shownCandidates = 5

// writeExplanation draws the chain from the question to the answer.
func writeExplanation(w io.Writer, s style, e *api.Explanation, all bool) {
	step := func(n int, what, format string, args ...any) {
		fmt.Fprintf(w, "%d %-10s %s\n", n, what, oneLine(fmt.Sprintf(format, args...)))
	}
	if e.Past {
		fmt.Fprintf(w, "%s\n", s.paint(yellow, "as it was at "+e.Snapshot+", which is not in force any more or here"))
	}
	if e.Twin != "" {
		fmt.Fprintf(w, "%s\n", s.paint(yellow, e.Twin))
	}
	step(1, "client", "%s", clientText(e))
	if e.Static || e.Trace == nil {
		fmt.Fprintf(w, "%s answer     %s\n", s.pick("→", "->"), e.Text)
		return
	}
	step(2, "match", "zone %s  service %s  policy %q  mode %s  snapshot %s", orNone(e.Zone), e.Service, e.Policy, e.Mode, e.Snapshot)
	step(3, "class", "%s", classText(e.Trace))
	if d := e.Demand; d != nil {
		fmt.Fprintf(w, "  demand     %s\n", classDemandText(d))
	}
	step(4, "candidates", "%d", len(e.Trace.Candidates))
	writeCandidates(w, s, e.Trace, all)
	step(5, "choice", "%s", choiceText(e.Trace))
	writeAnswer(w, s, e)
}

func clientText(e *api.Explanation) string {
	out := fmt.Sprintf("%s from %s", e.Client.Subnet, map[string]string{"ecs": "ECS"}[e.Client.From])
	if e.Client.From == "resolver" {
		out = e.Client.Subnet.Addr().String() + ", the resolver, stands for its users"
	}
	if e.Client.Capped {
		out += " (cut to the fleet's cap)"
	}
	if e.Client.From == "ecs" && e.Client.Resolver.IsValid() {
		out += fmt.Sprintf("  (resolver %s ignored)", e.Client.Resolver)
	}
	return out
}

func classText(t *placement.Trace) string {
	if t.Class < 0 {
		return "nothing is known of this address: the row for unknown clients decides  (" + orNone(t.Source) + ")"
	}
	where := strings.Join(strings.Fields(t.Location.Region+" "+t.Location.Country+" "+t.Location.Continent), ", ")
	return fmt.Sprintf("%d by %s: %s  (%s)", t.Class, t.Match, orNone(where), orNone(t.Source))
}

func classDemandText(d *api.ClassDemand) string {
	out := fmt.Sprintf("this class asks %.3g queries/s, ", d.Asked)
	if d.Planned == 0 {
		return out + "plans go by the expected demand"
	}
	return out + fmt.Sprintf("the plan counts %d requests/s", d.Planned)
}

func writeCandidates(w io.Writer, s style, tr *placement.Trace, all bool) {
	t := newTable(s, "", "CLUSTER", ">TIER", ">RTT ms", ">SHARE", "WHY")
	t.indent = "  "
	shown := tr.Candidates
	if !all && len(shown) > shownCandidates {
		shown = shown[:shownCandidates]
	}
	for _, c := range shown {
		sign := cell{s.pick("·", "-"), grey}
		if c.Cluster.String() == tr.Chosen {
			sign = cell{s.pick("→", ">"), green}
		} else if c.Out == "down" || c.Out == "forced" {
			sign = cell{s.pick("✖", "x"), red}
		} else if c.Out == "drained" {
			sign = cell{s.pick("◆", "*"), blue}
		}
		share := ""
		if c.PerMille > 0 {
			share = percent(float64(c.PerMille) / 1000)
		}
		t.add(sign, c.Cluster, c.Tier, fmt.Sprintf("%.1f", c.CostMS), share, c.Reason+measuredFrom(c.CostBy))
	}
	t.write(w)
	if n := len(tr.Candidates) - len(shown); n > 0 {
		fmt.Fprintf(w, "  (%d more: -v)\n", n)
	}
}

// measuredFrom says where a round trip comes from that is no distance.
func measuredFrom(by string) string {
	if by == "" {
		return ""
	}
	return "  (round trip measured from " + by + ")"
}

func choiceText(t *placement.Trace) string {
	switch {
	case t.FailOpen:
		return "FAIL-OPEN: what measures down is answered as if it were up"
	case t.Chosen == "":
		return "nobody is usable: the policy's all-down rule answers"
	}
	sharing := 0
	for _, c := range t.Candidates {
		if c.PerMille > 0 {
			sharing++
		}
	}
	if sharing < 2 {
		return t.Chosen + " takes the whole class"
	}
	return fmt.Sprintf("the client's block hashes to 0.%03d among %d shares: %s", t.Hash, sharing, t.Chosen)
}

func writeAnswer(w io.Writer, s style, e *api.Explanation) {
	var addrs []string
	for _, a := range e.Answer.Addresses {
		addrs = append(addrs, e.Type+" "+a.String())
	}
	line := e.Text
	if len(addrs) > 0 {
		line += "  " + strings.Join(addrs, ", ")
	}
	line += fmt.Sprintf("  TTL %g s", e.Answer.TTL)
	if e.Answer.Scope.IsValid() {
		line += fmt.Sprintf("  scope %s", e.Answer.Scope)
	}
	fmt.Fprintf(w, "%s answer     %s\n", s.pick("→", "->"), s.paint(bold, line))
	for i, step := range e.Anycast {
		if i == 0 {
			fmt.Fprintf(w, "  anycast    the address lies in %s: there routes choose the site\n", step.Prefix)
		}
		note := ""
		if step.Want != step.Step {
			note = fmt.Sprintf(" (wants %s)", step.Want)
		}
		fmt.Fprintf(w, "             %-8s %s%s\n", step.Site, step.Step, note)
	}
	fmt.Fprintf(w, "  decided in %.1f µs\n", e.TookUS)
}
