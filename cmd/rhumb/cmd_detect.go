package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rhumb/health/detect"
)

// detectCommand runs the failure detector of the health role over a trace, or
// makes one.
func (a *app) detectCommand() *cobra.Command {
	var replay bool
	var t detect.Trace
	cmd := &cobra.Command{
		Use:   "detect",
		Short: "Run the failure detector over a trace of heartbeats, or make one",
		Long: `With --replay it reads a trace of heartbeats and prints what the detector of the
role health would have said, by the trace's clock. Rows are target,via,recv_ms,seq in
order of arrival (via 0 is the direct path, seq the send slot), sync,,MS, (answered by
sync,MS) and end,,MS, at the end. Printed is target,t_ms,state for each change; every
target begins as up. A trace that begins with format,,2, may hold goodbyes,
leave,target,recv_ms,within_ms: the state is left then, and down when that has passed.

With --generate it prints a made-up trace, and what crashed when to standard error.`,
		Example: "  rhumb detect --generate 1h --interval 100ms | rhumb detect --replay --interval 100ms",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			switch {
			case replay == (t.Length != 0):
				return withCode(exitUsage, errors.New("say either --replay, with a trace on standard input, or --generate"))
			case t.Interval < time.Millisecond || t.Interval > time.Minute || t.Interval%time.Millisecond != 0:
				return withCode(exitUsage, errors.New("--interval: want 1ms to 1m, in whole milliseconds"))
			case replay:
				return detect.Replay(a.in, a.out, detect.Defaults(t.Interval))
			}
			return a.generate(t)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&replay, "replay", false, "read a trace from standard input")
	f.DurationVar(&t.Interval, "interval", 300*time.Millisecond, "time between two beats")
	f.DurationVar(&t.Length, "generate", 0, "make a trace of this length")
	f.IntVar(&t.Targets, "targets", 12, "targets of the trace to make")
	f.IntVar(&t.Paths, "paths", 5, "paths to each of them")
	f.Uint64Var(&t.Seed, "seed", 1, "the same seed gives the same trace")
	f.BoolVar(&t.Sick, "sick", false, "the observer pauses and loses its edge")
	f.DurationVar(&t.CrashEvery, "crash-every", 20*time.Minute, "mean time until a target crashes; 0: never")
	return cmd
}

// generate prints a trace to the output, and its crashes to standard error.
func (a *app) generate(t detect.Trace) error {
	truth, err := detect.Generate(a.out, t)
	if err != nil {
		return withCode(exitUsage, err)
	}
	for _, c := range truth.Crashes {
		fmt.Fprintf(a.err, "target %d away from %d to %d ms\n", c.Target, c.From.Milliseconds(), c.Till.Milliseconds())
	}
	return nil
}
