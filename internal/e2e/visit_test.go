//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Patience of a client. One that gets an error, or nothing for as long as resolv.conf of
// the lab lets a server be silent, tries again when a second is over; after visitPatience,
// what a stub resolver waits for its first server by default (resolv.conf(5)), it gives
// the second up as lost.
const (
	visitEvery    = time.Second
	visitTry      = 2 * time.Second
	visitPatience = 5 * time.Second
)

// visit is what a client does all the time: it resolves a name as its machine does, and
// fetches a small file over a connection of its own, by the family that answers first
// (RFC 8305).
type visit struct {
	Name string `json:"name"`
	Port string `json:"port"`
}

// visited is one second of a client.
type visited struct {
	V    int           `json:"v"` // number of the visit
	At   time.Time     `json:"at"`
	Took time.Duration `json:"took"`
	// Tries is how many there were, the good one included.
	Tries int    `json:"tries"`
	Site  string `json:"site,omitempty"` // who served it
	Err   string `json:"err,omitempty"`  // of the last try; empty: served
}

// visits makes a client of each visit: every second begins anew, whatever became of the
// one before.
func (r *report) visits(ctx context.Context, all []visit) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(visitEvery)
	defer tick.Stop()
	for {
		for i, v := range all {
			wg.Go(func() {
				if s := v.second(ctx); ctx.Err() == nil {
					s.V = i
					r.send(event{Visited: &s})
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// second tries until it is served or out of patience.
func (v visit) second(ctx context.Context) (s visited) {
	s.At = time.Now()
	ctx, cancel := context.WithTimeout(ctx, visitPatience)
	defer cancel()
	for {
		began := time.Now()
		s.Tries++
		site, err := v.try(ctx)
		s.Took = time.Since(s.At)
		if err == nil {
			s.Site, s.Err = site, ""
			return s
		}
		if ctx.Err() == nil || s.Err == "" { // that time is up says less than what came before
			s.Err = err.Error()
		}
		select {
		case <-ctx.Done():
			return s
		case <-time.After(visitEvery - time.Since(began)):
		}
	}
}

// try is one attempt, with nothing kept from the one before.
func (v visit) try(ctx context.Context) (site string, err error) {
	ctx, cancel := context.WithTimeout(ctx, visitTry)
	defer cancel()
	dialer := net.Dialer{Resolver: &net.Resolver{PreferGo: true}}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", net.JoinHostPort(v.Name+".", v.Port))
		}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(v.Name, v.Port)+"/healthz", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	switch site = resp.Header.Get("X-Served-By"); {
	case err != nil:
		return "", err
	case resp.StatusCode != http.StatusOK || string(body) != "ok\n":
		return "", fmt.Errorf("%s says %s: %q", site, resp.Status, body)
	}
	return site, nil
}
