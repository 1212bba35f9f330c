package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// globalFlags are known to every command; each has an environment variable
// RHUMB_NAME as well.
type globalFlags struct {
	output  string // table, wide, json, ndjson, name
	server  string // unix socket path or http(s) URL
	timeout time.Duration
	quiet   bool
	verbose bool
	color   string // auto, always, never
	access  access
}

// access is how to be let in by a unit on another machine.
type access struct {
	token     string // file
	ca        string // file
	cert, key string // files
}

func (g *globalFlags) register(f *pflag.FlagSet) {
	f.StringVarP(&g.output, "output", "o", "table", "table, wide, json, ndjson or name")
	f.StringVar(&g.server, "server", "", "unix socket or URL of a unit; default: the sockets in /run/rhumb, then ./.lab")
	f.DurationVar(&g.timeout, "timeout", 10*time.Second, "give up a request after this time")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "print results only")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "print more")
	f.StringVar(&g.color, "color", "auto", "auto, always or never")
	f.StringVar(&g.access.token, "token-file", "", "file with the token for an https server")
	f.StringVar(&g.access.ca, "ca-file", "", "file with the authority of an https server's certificate; default: the system's")
	f.StringVar(&g.access.cert, "cert-file", "", "file with the client certificate for an https server")
	f.StringVar(&g.access.key, "key-file", "", "file with its key")
}

func (g *globalFlags) check() error {
	for _, f := range []struct {
		flag, value string
		allowed     []string
	}{
		{"output", g.output, []string{"table", "wide", "json", "ndjson", "name"}},
		{"color", g.color, []string{"auto", "always", "never"}},
	} {
		if !slices.Contains(f.allowed, f.value) {
			return withCode(exitUsage, fmt.Errorf("--%s %q is none of %s", f.flag, f.value, strings.Join(f.allowed, ", ")))
		}
	}
	return nil
}

// envName is the variable which stands for a flag.
func envName(flag string) string {
	return "RHUMB_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// prepare runs before every command: flags which were not given come from the
// environment, then the global ones are judged.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(envName(f.Name))
		if f.Changed || !ok || value == "" || f.Name == "help" {
			return
		}
		if e := cmd.Flags().Set(f.Name, value); e != nil && err == nil {
			err = withCode(exitUsage, fmt.Errorf("%s=%q: %w", envName(f.Name), value, e))
		}
	})
	if err != nil {
		return err
	}
	return a.global.check()
}

// args makes a wrong number of arguments a usage error, and says what is wanted. So does
// it with an empty one.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return counted(func(cmd *cobra.Command, list []string) error {
		if err := check(cmd, list); err != nil {
			return err
		}
		if slices.Contains(list, "") { // as of an unset variable in a script
			return errors.New("an argument is empty, and an empty name matches nothing")
		}
		return nil
	})
}

// counted is args for a command some of whose arguments are another program's: those may
// be empty.
func counted(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, list []string) error {
		if err := check(cmd, list); err != nil {
			return withCode(exitUsage, fmt.Errorf("%w; usage: %s", err, cmd.UseLine()))
		}
		return nil
	}
}
