package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"rhumb/internal/config"
)

// TestOneScrapeShowsEveryUnit: the unit with the HTTP address tells of its siblings.
func TestOneScrapeShowsEveryUnit(t *testing.T) {
	dir := t.TempDir()
	counter := func(reg *prometheus.Registry, n float64) {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_test_total", Help: "x"})
		reg.MustRegister(c)
		c.Add(n)
	}
	sibling := prometheus.NewRegistry()
	counter(sibling, 7)
	l, err := net.Listen("unix", filepath.Join(dir, "rhumb-dns.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: promhttp.HandlerFor(sibling, promhttp.HandlerOpts{})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	dead, err := net.Listen("unix", filepath.Join(dir, "rhumb-edge.sock"))
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close() // a unit that was killed leaves its socket behind

	cfg := &config.Node{}
	cfg.Node.Roles = []string{config.RolePlacement, config.RoleAuthDNS}
	cfg.Listen.Admin, cfg.Listen.HTTP = dir, "127.0.0.1:0"
	u := &unit{cfg: cfg, roles: []string{config.RolePlacement}, name: "rhumb-director", metrics: prometheus.NewRegistry(),
		log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	counter(u.metrics, 3)
	families, err := u.gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{`rhumb_test_total{unit="rhumb-director"} 3`, `rhumb_test_total{unit="rhumb-dns"} 7`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in\n%s", want, text.String())
		}
	}
}
