// Command sample is a small TCP server that outlives its site by the hand-off socket, and nothing else of Rhumb inside.
//
// A client sends one line, SEED LENGTH UPLOAD, and so many octets as UPLOAD says. It
// gets LENGTH octets drawn from SEED and behind them the FNV-1a digest of what it sent.
// All that the server knows of a connection fits into 72 octets.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	"rhumb/edge/handsock"
)

func main() {
	listen := flag.String("listen", ":8080", "where clients come; a wildcard, so that strays are told from sessions")
	socket := flag.String("socket", "/run/rhumb/handoff.sock", "the agent's socket")
	service := flag.String("service", "stream", "name of the service in the fleet file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *socket, *service); err != nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, socket, service string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	h := newHall()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return ln.Close()
	})
	g.Go(func() error { return h.accept(ln) })
	// A refusal is no reason to stop serving: sessions are forwarded then.
	g.Go(func() error {
		if err := handsock.Serve(ctx, socket, service, h); err != nil {
			slog.Error("no hand-offs", "err", err)
		}
		return nil
	})
	return g.Wait()
}
