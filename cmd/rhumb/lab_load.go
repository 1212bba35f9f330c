package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"
)

// labLoad asks the lab's name servers at a steady rate, through the host's
// listener, from client blocks of every region in turn.
func labLoad(a *app, dir *labDir) *cobra.Command {
	var server, region string
	var lasting time.Duration
	cmd := &cobra.Command{
		Use: "load RATE", Short: "Ask at a rate (2000qps) until interrupted", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := strconv.Atoi(strings.TrimSuffix(args[0], "qps"))
			if err != nil || rate < 1 || rate > 100000 {
				return withCode(exitUsage, fmt.Errorf("rate %q: want 1qps to 100000qps", args[0]))
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), lasting)
			defer cancel()
			return a.load(ctx, server, region, rate)
		},
	}
	cmd.Flags().StringVar(&server, "at", "127.0.0.1:"+strconv.Itoa(labDNS), "the lab's DNS listener on the host")
	cmd.Flags().StringVar(&region, "region", "", "ask from one region alone: eu, us or ap")
	cmd.Flags().DurationVar(&lasting, "for", time.Hour, "end after this time")
	return cmd
}

// load sends queries at their due times and counts what comes back; it prints a
// line each second.
func (a *app) load(ctx context.Context, server, region string, rate int) error {
	queries, err := loadQueries(region)
	if err != nil {
		return err
	}
	conn, err := net.Dial("udp", server)
	if err != nil {
		return withCode(exitUnreachable, err)
	}
	var answered atomic.Int64
	refused := make(chan error, 1)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer conn.Close() // ends the reader
	reader.Go(func() { refused <- countAnswers(conn, &answered) })
	start, sent, last := time.Now(), 0, int64(0)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for next := start.Add(time.Second); ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-refused:
			return unheard(server, err)
		case now := <-tick.C:
			for ; sent < int(now.Sub(start).Seconds()*float64(rate)); sent++ {
				if _, err := conn.Write(queries[sent%len(queries)]); err != nil {
					return unheard(server, err)
				}
			}
			if now.After(next) {
				got := answered.Load()
				fmt.Fprintf(a.out, "%s  sent %d, answered %d (+%d)\n", now.Format(time.TimeOnly), sent, got, got-last)
				last, next = got, next.Add(time.Second)
			}
		}
	}
}

// unheard says that nobody listens at a server's address.
func unheard(server string, err error) error {
	return withCode(exitUnreachable, fmt.Errorf("lab: no name server at %s: %w", server, err))
}

// countAnswers counts the datagrams that come, until the connection is closed or
// refused. The kernel tells a refusal once, to the reader or to the writer,
// whoever asks first, so both must listen for it.
func countAnswers(conn net.Conn, answered *atomic.Int64) error {
	buf := make([]byte, 4096)
	for {
		if _, err := conn.Read(buf); err != nil {
			return err
		}
		answered.Add(1)
	}
}

// loadQueries are one question from a client block of each region, or of one.
func loadQueries(region string) ([][]byte, error) {
	regions := []string{"eu", "us", "ap"}
	if region != "" && !slices.Contains(regions, region) {
		return nil, withCode(exitUsage, fmt.Errorf("region %q: want one of %s", region, strings.Join(regions, ", ")))
	}
	var out [][]byte
	for i, block := range []string{"203.0.113.0", "203.0.113.32", "203.0.113.64"} {
		if region != "" && regions[i] != region {
			continue
		}
		m := new(dns.Msg)
		m.SetQuestion("www.cdn.demo.test.", dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 28, Address: net.ParseIP(block).To4()})
		b, err := m.Pack()
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
