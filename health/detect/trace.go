package detect

import (
	"bufio"
	"container/heap"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"time"
)

// Trace describes a made-up trace of heartbeats over wide-area paths; the same
// values give the same trace. Outages come with the lengths that were measured on
// twelve such paths for 1,367 hours (16.4 silences of 2 to 30 s a day and path,
// half of them above 4.7 s); those below 1.5 s are an assumption.
type Trace struct {
	Seed     uint64
	Interval time.Duration
	Length   time.Duration
	Targets  int
	Paths    int  // 1: the direct one alone, without outages common to all paths
	Sick     bool // the observer pauses and loses its edge
	// CrashEvery is the mean time that a target runs before it crashes; it stays
	// away for a minute or so. Zero: never.
	CrashEvery time.Duration
}

// Truth is what really happened in a trace.
type Truth struct {
	Crashes []Span   // by time
	shared  [][]Span // by target: all paths are dark
	private [][]Span // by target x Paths + via
	sick    []Span
	base    []time.Duration // least delay, by target x Paths + via
}

// Span is a time in which something was broken; Target says what crashed.
type Span struct {
	Target     uint32
	From, Till time.Duration
}

func (s Span) has(t time.Duration) bool { return s.From <= t && t < s.Till }

// The rates are a day and path: how many outages are longer than so many seconds.
// Between the points they fall as a power of the length.
type rates [][2]float64

func privateRates() rates {
	return rates{{.3, 308}, {.6, 123}, {1.3, 23.3}, {1.8, 15.3}, {2.8, 10.6}, {4.8, 6.5}, {9.8, 2.7}, {20, .75}, {30, .05}}
}

func sharedRates() rates {
	return rates{{.2, 24}, {.5, 15.5}, {.85, 10.8}, {1.85, 5.7}, {4.85, 2.2}, {9.85, 1}, {20, .3}, {30, .02}}
}

func pauseRates() rates { return rates{{.2, 40}, {1, 12}, {5, 2}, {10, .1}} }

func edgeRates() rates { return rates{{.3, 20}, {1, 14}, {5, 6}, {20, .5}} }

// spans draws outages over a length of time.
func (r rates) spans(rnd *rand.Rand, length time.Duration, scale float64) []Span {
	var out []Span
	perDay := r[0][1] * scale
	for t := 0.0; ; {
		t += rnd.ExpFloat64() * 86400 / perDay
		from := seconds(t)
		if from >= length {
			return out
		}
		span := seconds(r.length(rnd.Float64() * r[0][1]))
		out = append(out, Span{From: from, Till: from + span})
		t += span.Seconds()
	}
}

// length is the one that is exceeded at a rate.
func (r rates) length(rate float64) float64 {
	for i := 1; i < len(r); i++ {
		a, b := r[i-1], r[i]
		if rate >= b[1] {
			part := math.Log(rate/a[1]) / math.Log(b[1]/a[1])
			return a[0] * math.Pow(b[0]/a[0], part)
		}
	}
	return r[len(r)-1][0]
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// road is one path of one target.
type road struct {
	base    time.Duration // the least delay
	outages cursor
	held    bool   // beats of the outage wait in a queue and come at its end
	spells  cursor // of moderate loss
	queues  cursor // of slow growth and decay of the delay
	loss    float64
	peak    time.Duration
}

// cursor walks through spans in order of time.
type cursor struct {
	spans []Span
	i     int
}

// at returns the span around a time, which never falls; fresh when it is entered.
func (c *cursor) at(t time.Duration) (in *Span) {
	for c.i < len(c.spans) && c.spans[c.i].Till <= t {
		c.i++
	}
	if c.i < len(c.spans) && c.spans[c.i].has(t) {
		return &c.spans[c.i]
	}
	return nil
}

// maker makes one trace.
type maker struct {
	Trace
	rnd     *rand.Rand
	truth   *Truth
	roads   []road
	shared  []cursor
	crashes []cursor
	pauses  cursor
	edges   cursor
	wait    flight
	out     *bufio.Writer
	sync    time.Duration
	line    []byte // room for one row
}

// Generate writes a trace and returns what happened in it.
func Generate(out io.Writer, t Trace) (*Truth, error) {
	if t.Interval <= 0 || t.Length <= 0 || t.CrashEvery < 0 || t.Targets <= 0 || t.Targets > maxTarget || t.Paths <= 0 || t.Paths > maxVia {
		return nil, fmt.Errorf("detect: generate: want times above zero, 1 to %d targets and 1 to %d paths", maxTarget, maxVia)
	}
	m := &maker{Trace: t, rnd: rand.New(rand.NewPCG(t.Seed, 1)), truth: &Truth{}, out: bufio.NewWriterSize(out, 1<<16)}
	m.prepare()
	for slot := uint64(1); ; slot++ {
		sent := time.Duration(slot) * t.Interval
		if sent >= t.Length {
			break
		}
		for target := range t.Targets {
			// Targets are not in step with each other.
			m.beat(target, slot, sent+t.Interval*time.Duration(target)/time.Duration(t.Targets))
		}
		m.land(sent)
	}
	m.land(t.Length)
	fmt.Fprintf(m.out, "end,,%d,\n", t.Length.Milliseconds())
	if err := m.out.Flush(); err != nil {
		return nil, fmt.Errorf("detect: generate: %w", err)
	}
	return m.truth, nil
}

// prepare draws what is broken when.
func (m *maker) prepare() {
	for target := range m.Targets {
		var shared []Span
		if m.Paths > 1 {
			shared = sharedRates().spans(m.rnd, m.Length, 1)
		}
		m.truth.shared = append(m.truth.shared, shared)
		m.shared = append(m.shared, cursor{spans: shared})
		m.crashes = append(m.crashes, cursor{spans: m.crash(uint32(target))})
		for via := range m.Paths {
			m.road(via)
		}
	}
	if m.Sick {
		pauses, edges := pauseRates().spans(m.rnd, m.Length, 1), edgeRates().spans(m.rnd, m.Length, 1)
		m.pauses, m.edges = cursor{spans: pauses}, cursor{spans: edges}
		m.truth.sick = append(append([]Span(nil), pauses...), edges...)
	}
}

func (m *maker) crash(target uint32) (out []Span) {
	if m.CrashEvery == 0 {
		return nil
	}
	for t := 60.0; ; {
		t += 30 + m.rnd.ExpFloat64()*m.CrashEvery.Seconds()
		from, span := seconds(t), seconds(45+45*m.rnd.Float64())
		if from+span >= m.Length {
			m.truth.Crashes = append(m.truth.Crashes, out...)
			return out
		}
		out = append(out, Span{Target: target, From: from, Till: from + span})
		t += span.Seconds()
	}
}

// road draws one path: a relayed one is longer and breaks somewhat more often.
func (m *maker) road(via int) {
	scale := 1.0
	r := road{base: seconds(.02 + .05*m.rnd.Float64())}
	if m.Paths > 1 {
		scale = 12.7 / 15.5 // the rest of the outages are common to all paths
	}
	if via > 0 {
		scale *= 1.5
		r.base += seconds(.02 + .03*m.rnd.Float64())
	}
	outages := privateRates().spans(m.rnd, m.Length, scale)
	m.truth.private = append(m.truth.private, outages)
	m.truth.base = append(m.truth.base, r.base)
	r.outages = cursor{spans: outages}
	r.spells = cursor{spans: rates{{60, 6}, {600, .5}}.spans(m.rnd, m.Length, 1)}
	r.queues = cursor{spans: rates{{3, 40}, {30, 4}}.spans(m.rnd, m.Length, 1)}
	m.roads = append(m.roads, r)
}

// beat sends one beat over all paths.
func (m *maker) beat(target int, slot uint64, sent time.Duration) {
	if m.crashes[target].at(sent) != nil || m.shared[target].at(sent) != nil {
		return
	}
	for via := range m.Paths {
		at, lost := m.roads[target*m.Paths+via].carry(m.rnd, sent)
		if !lost {
			heap.Push(&m.wait, arrival{at, uint32(target), uint32(via), slot})
		}
	}
}

// carry is one passage over a path.
func (r *road) carry(rnd *rand.Rand, sent time.Duration) (at time.Duration, lost bool) {
	before := r.outages.i
	if o := r.outages.at(sent); o != nil {
		if r.outages.i != before {
			r.held = rnd.IntN(5) == 0
		}
		return o.Till + r.base + seconds(.001*rnd.Float64()), !r.held
	}
	loss := .003
	before = r.spells.i
	if s := r.spells.at(sent); s != nil {
		if r.spells.i != before || r.loss == 0 {
			r.loss = .05 + .25*rnd.Float64()
		}
		loss = r.loss
	}
	at = sent + r.base + seconds(.003*rnd.ExpFloat64())
	if rnd.IntN(500) == 0 {
		at += seconds(.05 * rnd.ExpFloat64())
	}
	before = r.queues.i
	if q := r.queues.at(sent); q != nil {
		if r.queues.i != before || r.peak == 0 {
			r.peak = seconds(.05 + .45*rnd.Float64()*rnd.Float64())
		}
		part := float64(sent-q.From) / float64(q.Till-q.From)
		at += time.Duration(float64(r.peak) * (1 - math.Abs(2*part-1)))
	}
	return at, rnd.Float64() < loss
}

// land writes what has arrived up to a time, as the observer takes it in, and the
// clock's rows between.
func (m *maker) land(until time.Duration) {
	for len(m.wait) > 0 && m.wait[0].at <= until {
		a := heap.Pop(&m.wait).(arrival)
		if m.edges.at(a.at) != nil {
			continue
		}
		if p := m.pauses.at(a.at); p != nil && a.at < p.Till {
			a.at = p.Till
			heap.Push(&m.wait, a)
			continue
		}
		m.clock(a.at)
		m.line = strconv.AppendUint(m.line[:0], uint64(a.target), 10)
		for _, n := range [3]uint64{uint64(a.via), uint64(a.at.Milliseconds()), a.slot} {
			m.line = strconv.AppendUint(append(m.line, ','), n, 10)
		}
		m.out.Write(append(m.line, '\n')) // a bufio.Writer keeps its error for Flush
	}
}

// clock writes the sync rows that belong before a time.
func (m *maker) clock(until time.Duration) {
	const every = 500 * time.Millisecond
	for m.sync+every < until.Truncate(time.Millisecond) {
		m.sync += every
		fmt.Fprintf(m.out, "sync,,%d,\n", m.sync.Milliseconds())
	}
}

// arrival is a beat that is under way.
type arrival struct {
	at          time.Duration
	target, via uint32
	slot        uint64
}

// flight is a heap of beats under way.
type flight []arrival

func (f flight) Len() int { return len(f) }
func (f flight) Less(i, j int) bool {
	a, b := &f[i], &f[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if a.target != b.target {
		return a.target < b.target
	}
	return a.via < b.via || a.via == b.via && a.slot < b.slot
}
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }

// Push and Pop are those of container/heap.
func (f *flight) Push(x any) { *f = append(*f, x.(arrival)) }

// Pop removes the last.
func (f *flight) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	*f = (*f)[:last]
	return x
}
