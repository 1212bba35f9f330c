package main

import (
	"math/bits"
	"time"
)

// latencies is a histogram of durations with an error below 1/32, for one goroutine.
type latencies struct {
	counts [benchBuckets]int64
	n      int64
	max    time.Duration
}

// Durations up to 63 ns have a bucket each; above, a power of two has 32.
const (
	benchSteps   = 32
	benchBuckets = 59 * benchSteps
)

// bucket is the place of a duration.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(0, bits.Len64(v)-6)
	return shift*benchSteps + int(v>>shift)
}

// upper is the largest duration of a bucket.
func upper(i int) time.Duration {
	if i < 2*benchSteps {
		return time.Duration(i)
	}
	shift := i/benchSteps - 1
	return time.Duration(uint64(i-shift*benchSteps+1)<<shift - 1)
}

func (l *latencies) add(d time.Duration) {
	l.counts[bucket(d)]++
	l.n++
	l.max = max(l.max, d)
}

func (l *latencies) merge(o *latencies) {
	for i, n := range o.counts {
		l.counts[i] += n
	}
	l.n += o.n
	l.max = max(l.max, o.max)
}

// quantile is the duration that a share of all, 0 to 1, did not exceed.
func (l *latencies) quantile(share float64) time.Duration {
	want := int64(share * float64(l.n))
	if float64(want) < share*float64(l.n) {
		want++
	}
	for i, seen := 0, int64(0); i < benchBuckets; i++ {
		if seen += l.counts[i]; seen >= max(want, 1) {
			return min(upper(i), l.max)
		}
	}
	return l.max
}

// latencyBar is a line of the histogram as it is shown: how many took no longer
// than this, and longer than the line before.
type latencyBar struct {
	Upto  float64 `json:"upto_ms"`
	Count int64   `json:"count"`
}

// bars sums up by powers of two, from the first that is not empty to the last.
func (l *latencies) bars() []latencyBar {
	var out []latencyBar
	for i := 0; i < benchBuckets; i += benchSteps {
		sum := int64(0)
		for _, n := range l.counts[i : i+benchSteps] {
			sum += n
		}
		if sum > 0 || len(out) > 0 {
			out = append(out, latencyBar{milliseconds(upper(i + benchSteps - 1)), sum})
		}
	}
	for len(out) > 0 && out[len(out)-1].Count == 0 {
		out = out[:len(out)-1]
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
