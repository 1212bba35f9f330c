package authdns

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestAliasSeries: how old what is known of a target is, since when it counts as stale, and
// how often a look failed.
func TestAliasSeries(t *testing.T) {
	now, r := testClock(), &resolverOf{}
	o := newOutside([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, func() time.Time { return now }, slog.New(slog.DiscardHandler), "")
	o.ask = r.ask
	o.want([]string{"www.other.test."})
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(o.metrics()...)
	step := func(what string, pass time.Duration, answers map[string][]string, fails error, want string) {
		t.Helper()
		now = now.Add(pass)
		r.answers, r.err = answers, fails
		o.round(t.Context())
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range families {
			m := f.GetMetric()[0]
			if len(f.GetMetric()) != 1 || m.GetLabel()[0].GetValue() != "www.other.test." {
				t.Errorf("%s: %v", what, f)
			}
			got = append(got, fmt.Sprintf("%s=%v", strings.TrimPrefix(f.GetName(), "rhumb_alias_"), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	refused, there := errors.New("connection refused"), map[string][]string{"A": {"www.other.test. 60 A 192.0.2.77"}}
	step("never heard", 0, nil, refused, "lookup_failures_total=1 stale=1")
	step("heard", outsideRetry, there, nil, "age_seconds=0 lookup_failures_total=1 stale=0")
	step("an outage", time.Minute, nil, refused, "age_seconds=60 lookup_failures_total=2 stale=0")
	step("for long", outsideSoft, nil, refused, "age_seconds=3660 lookup_failures_total=3 stale=1")
	step("back", outsideRetry, there, nil, "age_seconds=0 lookup_failures_total=3 stale=0")
	if (*outside)(nil).metrics() != nil {
		t.Error("series of lookups that nobody makes")
	}
}
