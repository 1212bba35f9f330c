//go:debug multipathtcp=0

// Command rhumb directs clients to sites: by DNS answers, by anycast routes, and
// by moving live sessions when a site leaves. Every role and every tool is a
// subcommand of this one binary.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"rhumb/internal/netlab"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(realMain())
}

// realMain lets deferred work run before the process exits. The inner side of a
// lab first completes its way into the namespaces, before any goroutine exists.
func realMain() int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	if netlab.Inside() {
		files, err := netlab.Enter()
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			return exitFailed
		}
		a.passed = files
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return a.run(ctx, os.Args[1:])
}
