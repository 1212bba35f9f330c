//go:build e2e

package edge

import (
	"fmt"
	"testing"
	"time"

	"rhumb/edge/reserve"
)

// TestBeyondRoom: a site has more sessions than its only Backup has room for. Its process
// crashes: all go on, since the Backup keeps the records of those beyond its room for the
// next process. Then there is room for some of them, which have a Backup from here on; and
// the site is lost: as many go on as there is room for, and no more.
func TestBeyondRoom(t *testing.T) {
	for _, f := range families(1) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x, capacity, later := w.crowd(f.vip), 10, 20
			room := reserve.Limit(capacity)
			a, b := w.sites(func(x *agentArgs) {
				if x.Backups = true; x.Site == "b" {
					x.Capacity, x.Shed = capacity, 100*time.Millisecond
				}
			})
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			next := w.agent("a", "b", func(x *agentArgs) { x.Backups, x.Standby = true, true })
			w.beyond(a, b, x.N, room)
			load.tell("go")
			a.kill()
			next.tell("begin")
			var r report
			w.await("all sessions at the next process", func() bool { next.ask("state", &r); return r.wentOn() >= float64(x.N) })
			w.beyond(next, b, x.N, room)
			w.noResets()
			b.ask(fmt.Sprintf("room %d", later), &word)
			room = reserve.Limit(later)
			w.beyond(next, b, x.N, room)
			w.lose("a", next)
			b.ask("lost a", &word)
			w.await("as many as there is room for", func() bool { b.ask("state", &r); return r.Revivals[reviveOK] >= float64(room) })
			load.tell("end")
			var rs []result
			load.next(&rs)
			ended := map[string]int{}
			for _, one := range rs {
				ended[one.reason()]++
			}
			b.ask("state", &r)
			t.Logf("clients ended with %v; revivals at the Backup %v", ended, r.Revivals)
			if ended[""] != room || ended["connection reset by peer"] != x.N-room || r.Revivals[reviveOK] != float64(room) {
				t.Errorf("want %d of %d sessions to go on, and the others reset", room, x.N)
			}
		})
	}
}

// beyond waits until one site's sessions have a Backup as far as there is room there, the
// others a deposit, and none would end with its process.
func (w *world) beyond(owner, backup *process, n, room int) {
	w.t.Helper()
	var a, b report
	w.await("records of all sessions, Backups for those there is room for", func() bool {
		owner.ask("state", &a)
		backup.ask("state", &b)
		return a.Sessions == n && a.Backed == room && a.Recall == n-room && a.Quiet == n && b.Records == n &&
			a.Reserved.Bare == n-room && a.Reserved.Recall == n-room && b.Reserved.Most == room
	})
}
