package main

import (
	"time"

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
}

func (g *globalFlags) register(f *pflag.FlagSet) {
	f.StringVarP(&g.output, "output", "o", "table", "table, wide, json, ndjson or name")
	f.StringVar(&g.server, "server", "", "unix socket or URL of a unit; default: the sockets in /run/rhumb, then ./.lab")
	f.DurationVar(&g.timeout, "timeout", 10*time.Second, "give up a request after this time")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "print results only")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "print more")
	f.StringVar(&g.color, "color", "auto", "auto, always or never")
}
