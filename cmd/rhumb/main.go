//go:debug multipathtcp=0

// Command rhumb directs clients to sites: by DNS answers, by anycast routes, and
// by moving live sessions when a site leaves. Every role and every tool is a
// subcommand of this one binary.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
