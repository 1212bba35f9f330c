package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// siblingTimeout bounds the scrape of another unit of this node.
const siblingTimeout = 2 * time.Second

// gatherer gathers this unit's metrics; the unit which has the node's HTTP
// address adds those of the node's other units, read from their sockets, since a
// scraper reaches that one address only. Each metric then says which unit it is of.
func (u *unit) gatherer() prometheus.Gatherer {
	if u.cfg.Listen.HTTP == "" || !u.servesHTTP() {
		return u.metrics
	}
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		own, err := u.metrics.Gather()
		if err != nil {
			return nil, err
		}
		families := make(map[string]*dto.MetricFamily)
		addFamilies(families, own, u.name)
		sockets, _ := filepath.Glob(u.socket("rhumb*.sock")) // the pattern is sound
		for _, sock := range sockets {
			if sock == u.socket(u.name+".sock") {
				continue
			}
			more, err := scrapeSibling(sock)
			if err != nil {
				u.log.Debug("a unit's metrics are missing", "socket", sock, "err", err)
				continue // a dead unit shows by its absence
			}
			addFamilies(families, more, unitOfSocket(sock))
		}
		return sortedFamilies(families), nil
	})
}

func unitOfSocket(sock string) string {
	base := filepath.Base(sock)
	return base[:len(base)-len(filepath.Ext(base))]
}

// scrapeSibling reads the metrics of a unit from its socket.
func scrapeSibling(sock string) ([]*dto.MetricFamily, error) {
	client := http.Client{Timeout: siblingTimeout, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", sock)
		}}}
	resp, err := client.Get("http://unit/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", sock, resp.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	found, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sock, err)
	}
	return sortedFamilies(found), nil
}

// addFamilies merges families into all, each metric marked with its unit.
func addFamilies(all map[string]*dto.MetricFamily, from []*dto.MetricFamily, unit string) {
	label := "unit"
	for _, f := range from {
		for _, m := range f.Metric {
			m.Label = append(m.Label, &dto.LabelPair{Name: &label, Value: &unit})
			slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
		}
		known := all[f.GetName()]
		if known == nil {
			all[f.GetName()] = f
			continue
		}
		if known.GetType() == f.GetType() {
			known.Metric = append(known.Metric, f.Metric...)
		}
	}
}

func sortedFamilies(all map[string]*dto.MetricFamily) []*dto.MetricFamily {
	out := make([]*dto.MetricFamily, 0, len(all))
	for _, name := range sortedKeys(all) {
		out = append(out, all[name])
	}
	return out
}
