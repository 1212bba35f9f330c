//go:build e2e

package edge

import (
	"path/filepath"
	"testing"
	"time"
)

// TestTLSSiteLoss: a site dies in the middle of records over TLS. From the other one
// each client has every byte of what it asked for: our own clients, and curl by each
// suite. Then the connection ends, which is what HTTP/1.1 lets a server do.
func TestTLSSiteLoss(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 1<<20)
	x.CA = filepath.Join(w.dir, "video.test.crt")
	x.N, x.VIP, x.Pace, x.Buffer, x.Gated, x.Hold = 20, vip6, 10*time.Millisecond, 16<<10, true, 512<<10
	a, b := w.tlsSites(ExportGroup)
	load := w.start("c", "load", x)
	var curls []*reader
	for _, suite := range tls13 {
		curls = append(curls, w.sealedCurl(vip4, suite))
	}
	var word string
	load.next(&word)
	w.backed(a, x.N+len(curls))
	load.tell("go")
	w.lose("a", a)
	load.tell("end")
	ends := make(chan error)
	for _, c := range curls {
		go func() { ends <- c.rest(x.HashHex) }()
	}
	b.ask("down a", &word)
	gaps := w.finish(load, x.N)
	for range curls {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	var r report
	b.ask("state", &r)
	t.Logf("longest gap p50 %v p99 %v; revivals %v, answers %v", quantile(gaps, .5), quantile(gaps, .99), r.Revivals, r.Answers)
	if r.Revivals[reviveOK] < float64(x.N+len(curls)) {
		t.Errorf("revived %v of %d sessions", r.Revivals, x.N+len(curls))
	}
}

// TestTLSAgentCrash: the process dies under sessions over TLS and another takes its
// place. It has their secrets from the Backup, and nowhere else.
func TestTLSAgentCrash(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 1<<20)
	x.CA = filepath.Join(w.dir, "video.test.crt")
	x.N, x.VIP, x.Pace, x.Buffer, x.Gated, x.Hold = 20, vip4, 10*time.Millisecond, 16<<10, true, 512<<10
	a, _ := w.tlsSites(ExportGroup)
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	next := w.agent("a", "b", func(x *agentArgs) { x.Export, x.Backups, x.Standby = ExportGroup, true, true })
	w.backed(a, x.N)
	w.stored(a, x.N)
	load.tell("go")
	a.kill()
	load.tell("end")
	next.tell("begin")
	w.finish(load, x.N)
	var r report
	next.ask("state", &r)
	if r.Revivals[reviveKept] != float64(x.N) {
		t.Errorf("revived %v of %d sessions", r.Revivals, x.N)
	}
	w.noResets()
}
