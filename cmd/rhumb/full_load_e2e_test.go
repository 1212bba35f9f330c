//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// What a name server is under while it is reloaded, replaced and killed.
const (
	fullNames = 100_000
	fullRate  = 20_000
	// fullBatches is what two workers may have read and not answered.
	fullBatches = 2 * 32
)

// bigZone applies a fleet whose one zone has fullNames hosts, all at one address.
func (m *manager) bigZone(serial int, host string) {
	m.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "$ORIGIN demo.test.\n$TTL 60\n@ SOA ns hostmaster %d 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A %s\n", serial, host)
	for i := range fullNames {
		fmt.Fprintf(&b, "h%d A %s\n", i, host)
	}
	m.write("demo.test.zone", b.String())
	m.apply()
}

// load asks for some time, each name of the big zone in turn, and does not wait for
// replies (an open loop). It is over when all are there, or lost.
func (m *manager) load(last time.Duration) <-chan benchReport {
	m.t.Helper()
	done := make(chan benchReport, 1)
	go func() {
		_, out, errs := cli(m.t.Context(), "bench", m.addr, "--zone", "demo.test", "--count", strconv.Itoa(fullNames), "--rate", strconv.Itoa(fullRate),
			"--duration", last.String(), "--patience", patience.String(), "--output", "json")
		var r benchReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			m.t.Errorf("bench: %v: %q %q", err, out, errs)
		}
		done <- r
	}()
	return done
}

// TestFullLoad: at 20,000 queries a second a reload of 100,000 names, an upgrade and a
// restart lose no query, and kill -9 those at most that were read and not answered,
// where somebody holds the sockets.
func TestFullLoad(t *testing.T) {
	m := newManager(t)
	m.bigZone(1, "192.0.2.11")
	m.start()
	eventually(t, "the server answers", func() bool { return m.ask() == "192.0.2.11" })
	eventually(t, "all sockets are kept outside", func() bool { return m.sockets() == m.open() })
	restart := func(sig syscall.Signal) func() {
		return func() {
			m.stop(sig)
			m.start()
		}
	}
	serial := 1
	for _, step := range []struct {
		name string
		most int64
		do   func()
	}{
		{"reload", 0, func() {
			serial++
			m.bigZone(serial, "192.0.2."+strconv.Itoa(10+serial))
			want := "192.0.2." + strconv.Itoa(10+serial)
			eventually(t, "the new zone is served", func() bool { return m.ask() == want })
		}},
		{"upgrade", 0, func() {
			before := m.pid()
			m.install("next")
			if code, out, errs := cli(t.Context(), "upgrade", "dns", "--config", m.dir+"/node.yaml"); code != exitOK {
				t.Fatalf("upgrade: exit %d, %q, %q", code, out, errs)
			}
			eventually(t, "the process before has ended", func() bool { return m.pid() != before && syscall.Kill(before, 0) != nil })
		}},
		{"restart", 0, restart(syscall.SIGTERM)},
		{"kill -9", fullBatches, restart(syscall.SIGKILL)},
	} {
		asked := m.load(6 * time.Second)
		m.answered(1)
		began := time.Now()
		step.do()
		eventually(t, "it answers", func() bool { return m.ask() != "" })
		took := time.Since(began)
		r := <-asked
		t.Logf("%s: %.1f s, %d sent, %d lost, rcodes %v, latency %.2v ms", step.name, took.Seconds(), r.Sent, r.Lost, r.Rcodes, r.Latency)
		if good := r.Rcodes["NOERROR"]; r.Lost > step.most || good != r.Answered || r.Sent < fullRate {
			t.Errorf("%s: %d of %d queries lost, %d of %d replies good; want at most %d lost", step.name, r.Lost, r.Sent, good, r.Answered, step.most)
		}
	}
}

// answered waits until the server has answered for some seconds.
func (m *manager) answered(seconds int) {
	m.t.Helper()
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		if m.ask() == "" {
			m.t.Error("no answer under load")
		}
	}
}
