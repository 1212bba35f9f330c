//go:build e2e

package edge

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"rhumb/edge/frame"
)

// report is an agent's answer to "state".
type report struct {
	Sessions  int
	States    map[string]int
	Results   map[string]int
	Errors    map[string]int
	Moved     []time.Duration
	Records   int
	Drain     DrainState
	Strays    map[string]float64 // by result, as package forward counts them
	Revivals  map[string]float64 // by result
	Answers   map[string]float64 // of probes, by result
	Questions map[string]float64 // to clients of moved sessions, by result
	Refused   float64            // lower epochs
	Held      float64            // packets kept for sessions on the move
	Backed    int                // sessions here with a Backup
	Recall    int                // sessions here without one, that a next process goes on with
	Quiet     int                // sessions whose end the kernel holds back
	Kept      int                // sockets that the store has
	Requests  int64              // answered
	Prepared  []Preparation
	Objects   map[string]float64 // of suspected sites' sessions, by what was done
	Suspected map[string]float64 // suspicions, by how they ended
	Copying   int                // objects on their way from an origin
	CPU       float64            // seconds that the process has used
	Totals    Totals
	Handing   []Handing
	Takes     map[string]float64 // sessions of other servers, by how they were taken
	Doubts    map[string]float64 // and by what the next process found of them
	Flows     []frame.Key        // established here
	Staged    int64              // octets of uploads of other sites
	Mine      int64              // octets of uploads of this site's clients, and
	Heard     uint32             // where clients of records stand: changes with each request
	Safe      int64              // those of them that the Backup has
	Uploads   map[string]float64 // ended, by status
	Effects   uint64             // objects that uploads were published as
	Reserved  Reserved
	Refusals  map[string]float64 // of Backups, by site
	Declined  float64            // pulls, for want of room
	Turns     map[string]uint32  // by client: where its next request begins, of sessions here,
	Told      map[string]uint32  // and as the records of others' sessions have it
}

// wentOn counts the sessions that another process goes on with.
func (r report) wentOn() float64 { return r.Revivals[reviveOK] + r.Revivals[reviveKept] }

func reportOf(a *Agent) report {
	r := report{States: map[string]int{}, Results: map[string]int{}, Errors: map[string]int{}, Turns: map[string]uint32{}, Told: map[string]uint32{}}
	for _, s := range a.tab.all() {
		r.Turns[s.key.Client.String()] = s.turn.Load().rcv
	}
	for _, s := range a.Sessions() {
		r.Sessions++
		r.States[s.State.String()]++
		if s.Backup != "" {
			r.Backed++
		}
		if s.Recall != "" {
			r.Recall++
		}
	}
	for _, m := range a.Moves() {
		r.Results[m.Result]++
		if m.Err != nil {
			r.Errors[m.Err.Error()]++
		} else {
			r.Moved = append(r.Moved, m.Took)
		}
	}
	a.replica.mu.Lock()
	r.Records = len(a.replica.store)
	for k, st := range a.replica.store {
		r.Told[k.Client.String()] = st.rec.RcvNxt
		r.Heard += st.rec.RcvNxt + uint32(len(st.piece))
	}
	a.replica.mu.Unlock()
	a.uploads.mu.Lock()
	for _, w := range a.uploads.wards {
		r.Staged += w.file.Length()
	}
	for _, s := range a.uploads.own {
		s.mu.Lock()
		r.Mine, r.Safe = r.Mine+s.file.Length(), r.Safe+s.safe
		s.mu.Unlock()
	}
	a.uploads.mu.Unlock()
	r.Drain, _ = a.DrainState()
	r.Reserved = a.Reserved()
	r.CPU = cpuSeconds()
	if q := a.quiet.kernel.Load(); q != nil {
		r.Quiet = q.Len()
	}
	r.Kept = a.kept.store.Load().Len()
	for _, svc := range a.view.Load().services {
		if svc.store != nil {
			r.Effects += svc.store.Effects()
		}
		if svc.source.Coming("/film.mp4") {
			r.Copying++
		}
	}
	return r
}

// cpuSeconds is what this process has used, itself and for it in the kernel.
func cpuSeconds() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// counted reads a counter or gauge by its only label, or under "" if it has none.
func counted(reg *prometheus.Registry, name string) map[string]float64 {
	out := map[string]float64{}
	families, _ := reg.Gather()
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			label := ""
			if len(m.Label) > 0 {
				label = m.Label[0].GetValue()
			}
			out[label] += m.Counter.GetValue() + m.Gauge.GetValue()
		}
	}
	return out
}
