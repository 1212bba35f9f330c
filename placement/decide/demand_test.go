package decide

import (
	"testing"

	"rhumb/placement"
)

func TestShifted(t *testing.T) {
	d := func(pairs ...int64) (out []placement.Demand) {
		for i := 0; i+1 < len(pairs); i += 2 {
			out = append(out, placement.Demand{Service: "www", Class: uint16(pairs[i]), QPS: pairs[i+1]})
		}
		return out
	}
	cases := []struct {
		name     string
		old, now []placement.Demand
		want     bool
	}{
		{"nothing", nil, nil, false},
		{"the first", nil, d(1, 5), true},
		{"all gone", d(1, 5), nil, true},
		{"the same in another order", d(1, 5, 2, 7), d(2, 7, 1, 5), false},
		{"a tenth", d(1, 100), d(1, 110), false},
		{"more than a tenth", d(1, 100), d(1, 111), true},
		{"the same sum elsewhere", d(1, 100), d(2, 100), true},
		{"a small class anew", d(1, 100), d(1, 100, 2, 9), false},
	}
	for _, tc := range cases {
		if got := Shifted(tc.old, tc.now); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestExpectedDemand(t *testing.T) {
	inv, ct := fleet(6), classes(t)
	w := newWorld(inv, ct)
	cases := []struct {
		name string
		by   map[string]int64
		want []int64 // ams, nyc, sin, fra, lax, syd, nobody knows where
	}{
		{"by region of the nearest site", map[string]int64{"europe": 100}, []int64{50, 0, 0, 50, 0, 0, 0}},
		{"the finest place wins", map[string]int64{"europe": 100, "DE": 7}, []int64{100, 0, 0, 7, 0, 0, 0}},
		{"the rest", map[string]int64{"US": 10, "*": 50}, []int64{10, 5, 10, 10, 5, 10, 10}},
		{"a place without clients", map[string]int64{"africa": 9}, []int64{0, 0, 0, 0, 0, 0, 9}},
	}
	for _, tc := range cases {
		got := w.expected(tc.by)
		for class := range got {
			if got[class] != tc.want[class]*whole {
				t.Errorf("%s: class %d has %d, want %d", tc.name, class, got[class], tc.want[class]*whole)
			}
		}
	}
}
