package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/internal/config"
)

// TestIdentityAlarms: each certificate speaks for itself, before it ends, after it, and
// when its files are no good.
func TestIdentityAlarms(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	own := func(left time.Duration, refused error) []config.OwnCertificate {
		return []config.OwnCertificate{{File: "site.crt", Ends: now.Add(left), Refused: refused}, {File: "store.crt", Ends: now.AddDate(4, 0, 0)}}
	}
	for _, tt := range []struct {
		name string
		own  []config.OwnCertificate
		want []string
	}{
		{"all is well", own(identityEndsSoon, nil), nil},
		{"it ends", own(identityEndsSoon-time.Second, nil), []string{"IdentityEnds ams1-a site.crt: site.crt of ams1-a ends on 2026-03-31"}},
		{"it has ended", own(-time.Second, nil), []string{"IdentityEnds ams1-a site.crt: site.crt of ams1-a ended on 2026-03-01: other sites and the store refuse its new connections"}},
		{"the new one is no good", own(time.Hour, errors.New("another group's")), []string{"IdentityEnds ams1-a site.crt: site.crt of ams1-a ends on 2026-03-01",
			"IdentityRejected ams1-a site.crt: the one that ends on 2026-03-01 is shown on: another group's"}},
	} {
		var got []string
		for _, a := range identityAlarms("ams1-a", tt.own, now) {
			got = append(got, a.Kind+" "+a.Object+": "+a.Text)
		}
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func TestIdentityMetrics(t *testing.T) {
	own := []config.OwnCertificate{{File: "site.crt", Ends: time.Unix(1_900_000_000, 0), Refused: errors.New("half a file")}, {File: "store.crt", Ends: time.Unix(1_900_000_001, 0)}}
	reg := prometheus.NewRegistry()
	registerIdentity(reg, func() []config.OwnCertificate { return own })
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, family := range all {
		for _, m := range family.GetMetric() {
			got = append(got, fmt.Sprintf("%s %s %.0f", family.GetName(), m.GetLabel()[0].GetValue(), m.GetGauge().GetValue()))
		}
	}
	want := []string{"rhumb_identity_expiry_timestamp_seconds site.crt 1900000000", "rhumb_identity_expiry_timestamp_seconds store.crt 1900000001",
		"rhumb_identity_rejected site.crt 1", "rhumb_identity_rejected store.crt 0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
