package authdns

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// overload is what the workers share to get through one, and what is told of it.
type overload struct {
	observe bool
	known   *known
	// shares bound what one network has signed while there is not enough for all.
	shares              *limiter
	signatures, returns *purse
	// shed is when a query was last turned away, or would have been, in nanoseconds of Unix.
	shed atomic.Int64

	mu    sync.Mutex // guards the rest
	began time.Time  // zero in calm times
	worst string     // the name below which most was asked for, and its part of that
	part  float64
}

// metrics are those of the networks which are known.
func (o *overload) metrics(now func() time.Time) []prometheus.Collector {
	if o == nil {
		return nil
	}
	opts := prometheus.GaugeOpts{Name: "rhumb_dns_known_networks", Help: "Networks of resolvers that asked in calm times, mostly for what exists."}
	return []prometheus.Collector{prometheus.NewGaugeFunc(opts, func() float64 { return float64(o.known.count(now().UnixNano())) })}
}

// shedSlack is how exact the time of the last shed query is: it is written this often
// at most, since all workers read it.
const shedSlack = 50 * time.Millisecond

// turnedAway notes that a query was not served.
func (o *overload) turnedAway(now int64) {
	if last := o.shed.Load(); now-last > int64(shedSlack) || last-now > int64(shedSlack) {
		o.shed.Store(now)
	}
}

// Overload is what a Server tells of more queries than it can answer.
type Overload struct {
	// Since is when it began; zero in calm times.
	Since time.Time
	// Observed is set where nothing is turned away, only counted.
	Observed bool
	// Name is the one below which most was asked for that does not exist, and Part its
	// part of all that; empty where nothing was.
	Name string
	Part float64
}

// String tells it to an operator.
func (o Overload) String() string {
	if o.Since.IsZero() {
		return "none"
	}
	what := "queries of unknown clients are truncated or dropped"
	if o.Observed {
		what = "queries would be truncated or dropped"
	}
	if o.Name == "" {
		return fmt.Sprintf("since %s %s", o.Since.UTC().Format(time.TimeOnly), what)
	}
	return fmt.Sprintf("since %s %s: names that do not exist, %.0f %% of them below %s", o.Since.UTC().Format(time.TimeOnly), what, 100*o.Part, o.Name)
}

// Overload tells whether more is asked for than can be answered.
func (s *Server) Overload() Overload {
	o := s.shield.overload
	if o == nil {
		return Overload{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return Overload{Since: o.began, Observed: o.observe, Name: o.worst, Part: o.part}
}

// strainEvery is how often it is looked whether an overload begins or ends.
const strainEvery = time.Second

// watchStrain tells when an overload begins and ends, until the context does.
func (s *Server) watchStrain(ctx context.Context) {
	t := time.NewTicker(strainEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.lookAtStrain(s.now())
		}
	}
}

// lookAtStrain takes one look.
func (s *Server) lookAtStrain(now time.Time) {
	o := s.shield.overload
	if o == nil {
		return
	}
	shed := o.shed.Load()
	over := overloaded(shed, now.UnixNano())
	o.mu.Lock()
	was := o.began
	o.mu.Unlock()
	if !over && was.IsZero() {
		s.worstName(true)
		return
	}
	worst, part := s.worstName(!over)
	o.mu.Lock()
	switch {
	case !over:
		o.began, o.worst, o.part = time.Time{}, "", 0
	case was.IsZero():
		o.began = now
		fallthrough
	default:
		o.worst, o.part = worst, part
	}
	o.mu.Unlock()
	switch {
	case over && was.IsZero():
		s.metrics.strained.Set(1)
		s.log.Warn("more is asked for than can be answered", "name", worst, "part", part, "observed", o.observe)
	case !over:
		s.metrics.strained.Set(0)
		s.log.Info("all that is asked for can be answered again", "after", now.Sub(was).Round(time.Second))
	}
}

// worstName is the name below which most was asked for that does not exist, and its part
// of that. Where told to, the counts begin anew.
func (s *Server) worstName(anew bool) (name string, part float64) {
	s.workersMu.Lock()
	defer s.workersMu.Unlock()
	sums, total := make(map[string]uint64), uint64(0)
	for _, w := range s.udpWorkers {
		if w.gate == nil {
			continue
		}
		w.busy.Lock()
		worst, asked := w.gate.heat.worst()
		total += w.gate.heat.total
		if anew {
			w.gate.heat.reset()
		}
		w.busy.Unlock()
		sums[worst] += asked
	}
	most := uint64(0)
	for _, worst := range sortedKeys(sums) {
		if sums[worst] > most {
			name, most = worst, sums[worst]
		}
	}
	if most == 0 {
		return "", 0
	}
	text, _, err := dns.UnpackDomainName([]byte(name), 0)
	if err != nil {
		return "", 0
	}
	return text, float64(most) / float64(total)
}
