package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"rhumb/health"
)

// encounters counts how requests of our own server end, and tells the role health
// of this machine when several in a row failed, and when they work again. Safe for
// concurrent use.
type encounters struct {
	path     string
	clusters func(service string) []string // of this site
	out      chan health.Encounter

	mu   sync.Mutex
	runs map[string]*errorRun // by service
	all  map[string]int64     // requests since the start, by service
}

// errorRun is the errors in a row of one service.
type errorRun struct {
	n, told int
	at      time.Time // when it was told last
}

// Errors are told from the first tellFrom on, and then at most once a tellEvery.
const (
	tellFrom  = 5
	tellEvery = time.Second
)

func newEncounters(path string, clusters func(string) []string) *encounters {
	return &encounters{path: path, clusters: clusters, out: make(chan health.Encounter, 16), runs: make(map[string]*errorRun), all: make(map[string]int64)}
}

// met takes the end of one request. It never waits: a session does.
func (e *encounters) met(service string, ok bool) {
	if errors, tell := e.count(service, ok, time.Now()); tell {
		for _, c := range e.clusters(service) {
			met := health.Encounter{Cluster: c, Errors: errors}
			if errors > 0 {
				met.Cause = fmt.Sprintf("clients of %s get errors", service)
			}
			select {
			case e.out <- met:
			default: // the next one says more
			}
		}
	}
}

// count keeps the run of a service, and says what there is to tell.
func (e *encounters) count(service string, ok bool, now time.Time) (errors int, tell bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all[service]++
	r := e.runs[service]
	switch {
	case ok && r == nil:
		return 0, false
	case ok:
		delete(e.runs, service)
		return 0, r.told > 0
	case r == nil:
		r = &errorRun{}
		e.runs[service] = r
	}
	r.n++
	if r.n < tellFrom || r.told > 0 && now.Sub(r.at) < tellEvery {
		return 0, false
	}
	errors, r.told, r.at = r.n-r.told, r.n, now
	return errors, true
}

// requests tells how many of each service there were since the start.
func (e *encounters) requests() map[string]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.all)
}

// run sends what there is to tell until the context ends. Where no role health
// listens, nobody is told.
func (e *encounters) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case met := <-e.out:
			e.send(met)
		}
	}
}

func (e *encounters) send(met health.Encounter) {
	conn, err := net.Dial("unixgram", e.path)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(tellEvery))
	if b, err := json.Marshal(met); err == nil {
		conn.Write(b)
	}
}

// clustersHere are the clusters of a service at this site.
func (u *unit) clustersHere(service string) []string {
	snap := u.current.Load()
	if snap == nil {
		return nil
	}
	svc, site := snap.Inventory.Service(service), snap.Inventory.Site(u.cfg.Node.Site)
	if svc == nil || site == nil {
		return nil
	}
	var out []string
	for _, c := range site.Clusters {
		if slices.Contains(svc.Clusters, c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}
