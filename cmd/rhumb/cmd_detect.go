package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"rhumb/health/detect"
)

// detectCommand runs the failure detector of the health role over a trace.
func (a *app) detectCommand() *cobra.Command {
	var replay bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "detect --replay [--interval DURATION]",
		Short: "Run the failure detector over a trace of heartbeats",
		Long: `Reads a trace of heartbeats and prints what the detector of the role health would
have said, by the trace's clock. Rows are target,via,recv_ms,seq in order of arrival
(via 0 is the direct path, seq the send slot), sync,,MS, (answered by sync,MS) and
end,,MS, at the end. Printed is target,t_ms,state for each change; every target
begins as up.`,
		Example: "  rhumb detect --replay --interval 300ms < trace.csv",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if !replay {
				return withCode(exitUsage, errors.New("say --replay, and give a trace on standard input"))
			}
			if interval < time.Millisecond || interval > time.Minute {
				return withCode(exitUsage, errors.New("--interval: want 1ms to 1m"))
			}
			return detect.Replay(a.in, a.out, detect.Defaults(interval))
		},
	}
	cmd.Flags().BoolVar(&replay, "replay", false, "read a trace from standard input")
	cmd.Flags().DurationVar(&interval, "interval", 300*time.Millisecond, "beat interval of the trace")
	return cmd
}
