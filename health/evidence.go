package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"rhumb/placement"
)

// Encounter is what clients met at a cluster: the second class of evidence, beside
// looks. Any server of the machine may report it; a run of passiveRun errors makes
// one failed look enough, and takes nothing down alone.
type Encounter struct {
	// Cluster of this site.
	Cluster string `json:"cluster"`
	// Errors in a row (5xx or resets) at the end of what was seen; 0 after a request
	// that went well.
	Errors int    `json:"errors"`
	Cause  string `json:"cause,omitempty"`
}

// maxEncounter bounds a datagram.
const maxEncounter = 1024

// readEncounter reads a datagram; strictly, since whoever may write to the socket
// may be an older or a foreign program.
func readEncounter(b []byte) (Encounter, error) {
	var e Encounter
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("health: evidence: %w", err)
	}
	if e.Cluster == "" || e.Errors < 0 {
		return e, errors.New("health: evidence: want a cluster, and errors of 0 or more")
	}
	e.Errors = min(e.Errors, 1000)
	if len(e.Cause) > causeLimit {
		e.Cause = e.Cause[:causeLimit]
	}
	return e, nil
}

// Evidence takes what servers of this machine say of their clients, on a unix
// datagram socket: a JSON object each.
type Evidence struct {
	path string
	to   func(Encounter)
	log  *slog.Logger
}

// NewEvidence returns a listener which will hand on what comes to path.
func NewEvidence(path string, to func(Encounter), log *slog.Logger) *Evidence {
	return &Evidence{path, to, log}
}

// Run listens until the context ends. A socket left behind is replaced.
func (e *Evidence) Run(ctx context.Context) error {
	if err := os.Remove(e.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("health: evidence %s: %w", e.path, err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: e.path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("health: evidence %s: %w", e.path, err)
	}
	defer os.Remove(e.path)
	defer conn.Close()
	if err := os.Chmod(e.path, 0o660); err != nil {
		return fmt.Errorf("health: evidence %s: %w", e.path, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxEncounter)
	told := false
	for {
		n, err := conn.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("health: evidence %s: %w", e.path, err)
		}
		met, err := readEncounter(buf[:n])
		if err != nil {
			if !told {
				e.log.Warn("a report of what clients met is not understood; later ones are dropped without a word", "err", err)
			}
			told = true
			continue
		}
		e.to(met)
	}
}

// Meet takes what clients met. It never blocks: a report that finds the agent behind
// is dropped, and the next one says more. Any goroutine may call it.
func (a *Agent) Meet(e Encounter) {
	select {
	case a.met <- e:
	default:
	}
}

// meet books an encounter at its cluster; bad when it has just become evidence, so
// that the cluster should be looked at.
func (a *Agent) meet(e Encounter, now time.Time) (id placement.ClusterID, bad bool) {
	id = placement.ClusterID{Site: a.cfg.Site, Name: e.Cluster}
	c := a.clusters[id]
	result := "ok"
	switch {
	case c == nil:
		result = "unknown"
	case e.Errors > 0:
		result = "error"
	}
	a.m.encounters.WithLabelValues(result).Inc()
	if c == nil {
		return id, false
	}
	before := c.passive.bad(now)
	c.passive.report(e.Errors, e.Cause, now)
	return id, !before && c.passive.bad(now)
}
