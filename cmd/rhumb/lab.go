package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rhumb/authdns/zone"
	"rhumb/internal/config"
	"rhumb/internal/netlab"
	"rhumb/placement/store"
)

// labCommands are what an operator types, and below them the processes of which the
// lab consists. The latter are hidden: they make sense inside its network alone.
func labCommands(a *app) []*cobra.Command {
	dir := labDir(defaultLabDir())
	var foreign labForeign
	lab := &cobra.Command{
		Use:   "lab",
		Short: "Run a small internet on this machine, and break it",
		Long: `Run three sites, transit routers, resolvers and clients in network namespaces:
real packets, real routes, real ports, and nothing left behind when it ends.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return startLab(cmd.Context(), a, dir, &foreign) },
	}
	foreign.flags(lab.Flags())
	lab.PersistentFlags().StringVar((*string)(&dir), "dir", string(dir), "state of the lab")
	lab.AddCommand(labInsideCommand(a), labRouterCommand(a), labOriginCommand(), labConsoleCommand(a), labNaiveCommand(a),
		labWait(a, &dir), labNodes(a, &dir), labExec(a, &dir), labShell(a, &dir), labReset(a, &dir), labLoad(a, &dir), labReplay(a, &dir))
	for _, v := range []struct{ verb, short string }{
		{"kill", "SIGKILL every process of a site and cut its links (--unit: that process alone)"},
		{"heal", "Undo what was broken at a site, or everywhere"},
		{"slow", "Add 200 ms to a site's links"},
		{"flap", "Take a site's links down and up every 2 s"},
		{"cut", "Take a site's links down; its processes live"},
	} {
		lab.AddCommand(labVerb(&dir, v.verb, v.short))
	}
	return []*cobra.Command{lab}
}

// defaultLabDir is .lab in this directory or the nearest one above that has it.
func defaultLabDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return ".lab"
	}
	for d := dir; ; d = filepath.Dir(d) {
		if st, err := os.Stat(filepath.Join(d, ".lab")); err == nil && st.IsDir() {
			return filepath.Join(d, ".lab")
		}
		if d == filepath.Dir(d) {
			return filepath.Join(dir, ".lab")
		}
	}
}

// labInsideCommand is what the lab starts itself anew as, inside its namespaces;
// the host's listeners come as files, since they belong to the host's network.
func labInsideCommand(a *app) *cobra.Command {
	var dir, http, dns string
	var foreign labForeign
	cmd := &cobra.Command{
		Use: "inside", Hidden: true, Args: cobra.NoArgs, Short: "The lab within its namespaces",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := &labListeners{http: netAddr(http), dns: netAddr(dns), files: a.passed}
			return runLab(cmd.Context(), a, labDir(dir), l, &foreign)
		},
	}
	foreign.flags(cmd.Flags())
	cmd.Flags().StringVar(&dir, "dir", "", "state of the lab")
	cmd.Flags().StringVar(&http, "http", "", "address of the page on the host")
	cmd.Flags().StringVar(&dns, "dns", "", "address for DNS on the host")
	return cmd
}

// ask sends one request to the running lab and ends with its code. Without a
// running lab that is exitUnreachable; what the lab itself reports is never 0 or less.
func ask(ctx context.Context, dir labDir, req netlab.Request, onData func(json.RawMessage) error) error {
	code, err := netlab.Ask(ctx, dir.control(), req, onData, nil)
	if err != nil && code < 0 {
		return withCode(exitUnreachable, err)
	}
	if err != nil {
		return withCode(max(code, exitFailed), err)
	}
	if code != 0 {
		return &exitError{code: code, err: fmt.Errorf("lab: %s ended with %d", req.Verb, code), quiet: true}
	}
	return nil
}

// labWait polls for the control socket, which a lab opens late, and then waits at
// the lab itself. It ends by its own timeout, by Ctrl-C, or with the lab.
func labWait(a *app, dir *labDir) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait", Short: "Wait until the lab is ready", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			for {
				err := ask(ctx, *dir, netlab.Request{Verb: "wait"}, nil)
				if err == nil || codeOf(err) != exitUnreachable {
					return err
				}
				if cmd.Context().Err() != nil {
					return withCode(exitInterrupted, errors.New("lab: interrupted before it was ready"))
				}
				select {
				case <-ctx.Done():
					return withCode(exitTimeout, fmt.Errorf("lab: not ready after %s: %w", timeout, err))
				case <-time.After(100 * time.Millisecond):
				}
			}
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "give up after this time")
	return cmd
}

// labNodes lists the nodes; each comes as a message of its own, so that no size of
// a lab meets a limit.
func labNodes(a *app, dir *labDir) *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the nodes", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var nodes []netlab.NodeView
			err := ask(cmd.Context(), *dir, netlab.Request{Verb: "nodes"}, func(b json.RawMessage) error {
				var n netlab.NodeView
				err := json.Unmarshal(b, &n)
				nodes = append(nodes, n)
				return err
			})
			if err != nil {
				return err
			}
			return a.printNodes(nodes)
		},
	}
}

// printNodes prints a table, or a document in the shape of the API's lists.
func (a *app) printNodes(nodes []netlab.NodeView) error {
	if a.global.output == "json" {
		doc := map[string]any{"apiVersion": "v1", "kind": "LabNodes", "items": nodes}
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(doc)
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tROLE\tREGION\tFAULTS\tADDRESSES")
	for _, n := range nodes {
		var faults []string
		for _, f := range n.Faults {
			faults = append(faults, string(f.Kind))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Role, n.Region, or(strings.Join(faults, ","), "-"), joinAddrs(n.Addresses))
	}
	return w.Flush()
}

func joinAddrs(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// labVerb is a verb that breaks a node, or heals it. What it does is the lab's
// business; the client passes words on.
func labVerb(dir *labDir, verb, short string) *cobra.Command {
	var unit string
	cmd := &cobra.Command{Use: verb + " SITE", Short: short, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := netlab.Request{Verb: verb, Node: args[0], Args: map[string]string{"unit": unit}}
			return ask(cmd.Context(), *dir, req, nil)
		}}
	if verb == "heal" {
		cmd.Use, cmd.Args = "heal [SITE]", args(cobra.MaximumNArgs(1))
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			req := netlab.Request{Verb: verb, Node: strings.Join(args, ""), Args: map[string]string{"unit": unit}}
			return ask(cmd.Context(), *dir, req, nil)
		}
	}
	if verb == "kill" || verb == "heal" {
		cmd.Flags().StringVar(&unit, "unit", "", "this process alone: "+strings.Join(siteUnits(), ", "))
	}
	return cmd
}

// labExec runs a program inside a node; its output, exit code and signals pass through.
func labExec(a *app, dir *labDir) *cobra.Command {
	return &cobra.Command{
		Use: "exec NODE -- PROGRAM [ARG]…", Short: "Run a program inside a node", Args: counted(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer signal.Stop(signals)
			// The program gets the signals; this side ends when it does.
			code, err := netlab.ExecIn(context.WithoutCancel(cmd.Context()), dir.control(), args[0], args[1:], [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, signals)
			return execResult(code, err)
		},
	}
}

// labShell opens the user's shell on a terminal inside a node; the size of the
// window follows.
func labShell(a *app, dir *labDir) *cobra.Command {
	return &cobra.Command{
		Use: "shell NODE", Short: "Open a shell inside a node", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGWINCH)
			defer signal.Stop(signals)
			shell := or(os.Getenv("SHELL"), "/bin/sh")
			code, err := netlab.ShellIn(cmd.Context(), dir.control(), args[0], []string{shell}, os.Stdin, signals)
			return execResult(code, err)
		},
	}
}

// execResult ends with the program's own code, quietly: it has said itself what
// was wrong. Below 0 the lab was not reached at all.
func execResult(code int, err error) error {
	switch {
	case err != nil && code < 0:
		return withCode(exitUnreachable, err)
	case err != nil:
		return withCode(code, err)
	case code != 0:
		return &exitError{code: code, err: errors.New("the program failed"), quiet: true}
	}
	return nil
}

// labReset removes the state of a lab. It asks for the group key first, which only
// a lab makes: a mistyped --dir must not cost anybody a directory.
func labReset(a *app, dir *labDir) *cobra.Command {
	return &cobra.Command{
		Use: "reset", Short: "Remove the state of a lab that has ended", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := ask(cmd.Context(), *dir, netlab.Request{Verb: "nodes"}, nil); err == nil {
				return errors.New("lab: it is running; end it first")
			}
			if _, err := os.Stat(dir.path("group")); err != nil {
				return withCode(exitNotFound, fmt.Errorf("lab: no state in %s", *dir))
			}
			return os.RemoveAll(string(*dir))
		},
	}
}

// readZone reads a zone file as the name server does.
func readZone(origin, file string, data []byte) (config.ZoneInfo, error) {
	z, err := zone.Parse(file, origin, strings.NewReader(string(data)))
	if err != nil {
		var bad *zone.Error
		if errors.As(err, &bad) {
			// What is missing has no place: the file's beginning stands for it.
			err = &config.Error{File: bad.File, Line: max(bad.Line, 1), Column: max(bad.Column, 1), Reason: bad.Reason}
		}
		return config.ZoneInfo{}, err
	}
	info := config.ZoneInfo{Names: z.Names(), Serial: z.Serial(), Taken: z.Addressed}
	if z.Signed != nil {
		info.Signed = fmt.Sprintf("%s:%d", file, z.Signed.Line)
	}
	return info, nil
}

// applyRoot writes the root server's fleet into its own file store.
func (w *world) applyRoot(ctx context.Context) error {
	cfg, err := config.LoadNode(w.dir.path("root", "node.yaml"))
	if err != nil {
		return err
	}
	fleet, err := config.LoadFleet(w.dir.path("root", "fleet.yaml"), readZone)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Node.DataDir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	st, err := store.Open(ctx, store.Config{File: cfg.Store.File, Logger: w.log})
	if err != nil {
		return err
	}
	defer st.Close()
	_, err = st.PutFleet(ctx, &fleet.Fleet, fleet.Blobs, 0, "lab", "the lab's root")
	return err
}
