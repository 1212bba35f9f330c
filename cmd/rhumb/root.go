package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"rhumb/internal/config"
	"rhumb/placement"
)

// Exit codes; scripts rely on them, so none changes its meaning.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitRefused     = 5
	exitUnhealthy   = 6
	exitTimeout     = 7
	exitForbidden   = 8
	exitConfig      = 9
	exitInterrupted = 130
)

// exitError carries an exit code with its cause; a quiet one was already told.
type exitError struct {
	code  int
	err   error
	quiet bool
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// withCode wraps an error so that the process ends with code.
func withCode(code int, err error) error { return &exitError{code: code, err: err} }

// app is what every command gets: where to write, and the global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	global   globalFlags
	// passed are the files that the outer side of a lab handed in.
	passed []*os.File
}

// run executes one command line and returns the exit code. Results go to out,
// everything else to errw.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	return (&app{in: in, out: out, err: errw}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return a.finish(ctx, root.ExecuteContext(ctx))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "rhumb",
		Short:         "DNS and anycast traffic director",
		SilenceUsage:  true,
		SilenceErrors: true,
		// Flags which were not given come from the environment.
		PersistentPreRunE: a.prepare,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withCode(exitUsage, err) })
	a.global.register(root.PersistentFlags())
	for _, add := range []func(*app) []*cobra.Command{serveCommands, labCommands, identityCommands, clientCommands} {
		root.AddCommand(add(a)...)
	}
	return root
}

// finish tells the error, if any, and maps it to an exit code. What fails because
// the user has interrupted it is interrupted, whatever it looks like from inside:
// mostly a connection that went away.
func (a *app) finish(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	code := codeOf(err)
	if ctx.Err() != nil && (code == exitFailed || code == exitUnreachable) {
		code = exitInterrupted
	}
	var e *exitError
	if !errors.As(err, &e) || !e.quiet {
		fmt.Fprintln(a.err, "error:", err)
	}
	return code
}

// codeOf maps an error to its exit code: its own if it carries one, else by what it is.
func codeOf(err error) int {
	var coded *exitError
	var refusal *placement.Refusal
	var bad *config.Error
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &refusal):
		return exitRefused
	case errors.As(err, &bad):
		return exitConfig
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"):
		return exitUsage // the library has no type for it
	}
	return exitFailed
}
