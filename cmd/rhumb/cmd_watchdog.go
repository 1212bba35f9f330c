package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"rhumb/bgp"
	"rhumb/internal/config"
)

// pulseFile is where the unit with the kernel's routes shows that it lives.
func pulseFile(cfg *config.Node) string { return filepath.Join(cfg.Listen.Admin, "kernel.pulse") }

// minAfter is how soon a speaker may be missed: some of its beats, not one.
const minAfter = 3 * time.Second

// watchdogCommand is a process of its own, in a unit of its own: what shares a
// fate with the speaker cannot watch it.
func (a *app) watchdogCommand() *cobra.Command {
	var file string
	var after time.Duration
	cmd := &cobra.Command{
		Use:   "watchdog",
		Short: "Move the kernel routes of a dead speaker to gshut",
		Long: `With engine kernel, routes outlive the process that looks after them. This
watches it, and moves its routes to gshut (metric 300) when it has been gone or
hanging for a while. It never removes a route, and does nothing else.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if after < minAfter {
				return withCode(exitUsage, fmt.Errorf("--after %s: want %s at the least; the speaker shows itself once a second", after, minAfter))
			}
			cfg, err := config.LoadNode(file)
			if err != nil {
				return withCode(exitConfig, err)
			}
			if cfg.BGP == nil || cfg.BGP.Engine != config.EngineKernel {
				return withCode(exitConfig, &config.Error{File: file, Reason: "bgp.engine is not kernel: no route outlives its speaker"})
			}
			w, err := bgp.NewWatchdog(bgp.WatchdogConfig{Pulse: pulseFile(cfg), Table: cfg.BGP.Kernel.Table,
				Protocol: uint8(cfg.BGP.Kernel.Protocol), After: after, Logger: a.logger()})
			if err != nil {
				return err
			}
			return w.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/rhumb/node.yaml", "node file")
	cmd.Flags().DurationVar(&after, "after", 5*time.Second, "how long the speaker may be gone: a restart should fit in")
	return cmd
}
