package main

import (
	"io"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
)

// twinCommand lists input-delayed twins; its verb lets the feed of one go on.
func (a *app) twinCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "twin", Short: "Input-delayed twins: how late they are, and whether their feeds are held", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			var st api.Status
			raw, err := c.get(cmd.Context(), "/status", &st)
			if err != nil {
				return err
			}
			var names []string
			for _, t := range st.Twins {
				names = append(names, t.Node)
			}
			return a.show(result{raw: raw, names: names, text: func(w io.Writer, s style) {
				if len(st.Twins) == 0 {
					io.WriteString(w, "no node is a twin\n")
					return
				}
				twinTable(s, st.Twins).write(w)
			}})
		}}
	var req api.ReasonRequest
	release := &cobra.Command{Use: "release", Short: "On a twin: let its held feed go on, from what is in force now", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.change(cmd, "POST", "/twin/release", req, req.Reason, "release of the twin", "rhumb twin")
		}}
	release.Flags().StringVar(&req.Reason, "reason", "", "why it is safe now; the next shift will read it (required)")
	cmd.AddCommand(release)
	return cmd
}

func twinTable(s style, twins []api.Twin) *table {
	t := newTable(s, "TWIN", "SITE", ">DELAY", "INPUTS OF", "FEED")
	for i := range twins {
		w := &twins[i]
		feed := plain("goes")
		switch {
		case w.Held != "":
			feed = cell{"held since " + w.HeldSince.Format("15:04:05") + ": " + w.Held, red}
		case w.Waits != "":
			feed = cell{"waits: " + w.Waits, yellow}
		}
		t.add(w.Node, w.Site, w.Delay, w.Inputs.Format("2006-01-02 15:04:05"), feed)
	}
	return t
}
