package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/store"
)

// fileCommands read fleet and node files.
func (a *app) fileCommands() []*cobra.Command {
	return []*cobra.Command{a.checkCommand(), a.applyCommand(), a.configCommand()}
}

// applyFlags are those of `apply`.
type applyFlags struct {
	yes      bool
	dryRun   bool
	override []string
	store    string
	note     string
}

func (a *app) applyCommand() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Check a fleet file and put it into the store",
		Long: `Check a fleet file with the sites/, services/ and zones beside it, show what it
changes, and put it into the store. A failed apply changes nothing.`,
		Example: "  rhumb apply fleet.yaml\n  rhumb apply fleet.yaml --store /var/lib/rhumb/state.json --yes     # a role alone, without etcd",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			fleet, err := config.LoadFleet(given[0], readZone)
			if err != nil {
				return err
			}
			if f.store != "" {
				return a.applyToFile(cmd.Context(), fleet, &f)
			}
			return a.applyToServer(cmd, fleet, &f)
		},
	}
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&f.store, "store", "", "write this state file of a role alone (store: file) instead of asking a unit")
	cmd.Flags().StringVar(&f.note, "note", "", "a word for the history")
	overrideFlags(cmd, &f.override, &f.dryRun)
	return cmd
}

// applyToServer shows what would change, asks, and applies exactly that: the
// revision which was looked at is named, so that nobody's change in between is lost.
func (a *app) applyToServer(cmd *cobra.Command, fleet *config.Fleet, f *applyFlags) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	req := api.ApplyRequest{Fleet: fleet.Fleet, Blobs: fleet.Blobs, Override: f.override, Note: f.note, DryRun: true}
	if req.Expect, err = liveRevision(ctx, c); err != nil {
		return err
	}
	var res api.ApplyResult
	raw, err := c.do(ctx, "PUT", "/config", req, &res)
	if err != nil {
		return a.applyRefused(cmd, err)
	}
	if f.dryRun {
		return a.showApply(raw, &res)
	}
	if !f.yes {
		writeChanges(a.err, a.style(), &res)
		if err := a.confirm("apply this?"); err != nil {
			return err
		}
	}
	req.DryRun, res = false, api.ApplyResult{}
	if raw, err = c.do(ctx, "PUT", "/config", req, &res); err != nil {
		return a.applyRefused(cmd, err)
	}
	return a.showApply(raw, &res)
}

func (a *app) applyRefused(cmd *cobra.Command, err error) error {
	return explainRefusal(err, "apply", "rhumb check "+quote(cmd.Flags().Arg(0))+" --against live", commandLine(cmd))
}

// liveRevision returns the revision of the configuration in force.
func liveRevision(ctx context.Context, c *client) (int64, error) {
	var live struct {
		Revision int64 `json:"revision"`
	}
	_, err := c.get(ctx, "/config", &live)
	return live.Revision, err
}

// confirm asks a person. Without a terminal nobody can answer: it refuses and
// names the flag.
func (a *app) confirm(question string) error {
	if !isTerminal(a.in) {
		return withCode(exitUsage, errors.New("nobody to ask without a terminal; look with --dry-run, then say --yes"))
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && line == "" {
		return withCode(exitInterrupted, errors.New("no answer; nothing was changed"))
	}
	if w := strings.ToLower(strings.TrimSpace(line)); w != "y" && w != "yes" {
		return errors.New("not applied; nothing was changed")
	}
	return nil
}

func (a *app) showApply(raw []byte, res *api.ApplyResult) error {
	return a.show(result{raw: raw, names: changeNames(res), text: func(w io.Writer, s style) {
		writeChanges(w, s, res)
		if !res.DryRun {
			fmt.Fprintf(w, "applied as revision %d\n", res.Revision)
		}
	}})
}

func changeNames(res *api.ApplyResult) []string {
	var out []string
	for _, c := range res.Changes {
		out = append(out, c.Kind+"/"+c.Object)
	}
	return out
}

// writeChanges draws the differences between what is in force and the file.
func writeChanges(w io.Writer, s style, res *api.ApplyResult) {
	if len(res.Changes) == 0 {
		fmt.Fprintln(w, "nothing changes")
		return
	}
	t := newTable(s, "", "KIND", "OBJECT", "CHANGE")
	for _, c := range res.Changes {
		sign := map[string]cell{"added": {"+", green}, "removed": {"-", red}, "changed": {"~", yellow}}[c.Verb]
		t.add(sign, c.Kind, c.Object, strings.TrimSpace(c.Verb+" "+c.Text))
	}
	t.write(w)
	if res.Answers >= 0 {
		fmt.Fprintf(w, "%s of the answers change\n", percent(res.Answers))
	}
	for _, r := range res.Refusals {
		fmt.Fprintf(w, "%s rule %s, object %s, have %s, limit %s\n", s.paint(yellow, "set aside:"), r.Rule, r.Object, r.Have, r.Limit)
	}
}

// setAside notes the rules which the file's guard is to leave aside: max-announced and
// rpki-invalid are judged on the node, by whatever store it has.
func setAside(fleet *placement.Fleet, f *applyFlags) error {
	if len(f.override) == 0 {
		return nil
	}
	for _, name := range f.override {
		if !slices.Contains([]placement.RuleName{placement.RuleMaxAnnounced, placement.RuleRPKIInvalid, placement.RuleSerial}, placement.RuleName(name)) {
			return withCode(exitUsage, fmt.Errorf("--override %s means nothing with --store: no such rule judges a file of one node", name))
		}
	}
	if strings.TrimSpace(f.note) == "" {
		return withCode(exitUsage, errors.New("a rule is set aside with a reason only; say why with --note"))
	}
	fleet.SetAside = placement.Audit{Who: localUser(), Reason: f.note, Since: time.Now().UTC(), Override: f.override}
	return nil
}

// applyToFile writes the store of a role that runs alone. Nothing but the file's
// own checks, and the serials of zones that others copy, judges it: there is one
// node, and no fleet whose load could shift.
func (a *app) applyToFile(ctx context.Context, fleet *config.Fleet, f *applyFlags) error {
	if err := setAside(&fleet.Fleet, f); err != nil {
		return err
	}
	if f.dryRun {
		_, err := fmt.Fprintf(a.out, "%s is sound: %s; nothing was written\n", f.store, contents(&fleet.Fleet))
		return err
	}
	if dir := filepath.Dir(f.store); !exists(dir) {
		return withCode(exitNotFound, fmt.Errorf("apply to %s: there is no directory %s; it is the node's data_dir", f.store, dir))
	}
	st, err := store.Open(ctx, store.Config{File: f.store})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := judgeZones(ctx, st, fleet, f.override); err != nil {
		return err
	}
	rev, err := st.PutFleet(ctx, &fleet.Fleet, fleet.Blobs, 0, localUser(), f.note)
	if err != nil {
		return fmt.Errorf("apply to %s: %w", f.store, err)
	}
	_, err = fmt.Fprintf(a.out, "applied as revision %d to %s: %s\n", rev, f.store, contents(&fleet.Fleet))
	return err
}

func localUser() string {
	if u := os.Getenv("USER"); u != "" {
		return u
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// contents counts what a fleet holds.
func contents(f *placement.Fleet) string {
	n := func(count int, what string) string {
		if count == 1 {
			return "1 " + what
		}
		plural := what + "s"
		if what == "prefix" {
			plural = "prefixes"
		}
		return fmt.Sprintf("%d %s", count, plural)
	}
	return strings.Join([]string{n(len(f.Sites), "site"), n(len(f.Services), "service"), n(len(f.Prefixes), "prefix"), n(len(f.Zones), "zone")}, ", ") +
		", mode " + string(f.Mode.Or(placement.Observe))
}
