//go:build e2e

package edge

import "testing"

// TestUploadProcessDies: the process that takes an upload with L2 dies, its host lives, and
// another process takes its place. The upload goes on at the Backup, on the same connection,
// and the object is there once. Where the Backup is out of reach the client hears of the end, and
// nothing is published anywhere.
func TestUploadProcessDies(t *testing.T) {
	for _, f := range families(1) {
		for name, reached := range map[string]bool{"the Backup is there": true, "the Backup is out of reach": false} {
			t.Run(f.name+", "+name, func(t *testing.T) {
				w := newWorld(t)
				a, b := w.takers(nil, nil)
				next := w.agent("a", "b", func(y *agentArgs) {
					y.Backups, y.Uploads, y.Freshness, y.Standby = true, true, FreshL2, true
				})
				body := randomBody(4<<20, 4)
				up := w.upload(f.vip, "/object.bin", body, "-H", "If-None-Match: *")
				up.give(len(body) / 2)
				var r report
				w.await("octets at the Backup", func() bool { b.ask("state", &r); return r.Staged >= int64(len(body))/4 })
				w.await("silence", func() bool { a.ask("state", &r); return r.Quiet == 1 })
				if !reached {
					w.in("b", "ip link set e0 down")
				}
				a.kill()
				next.tell("begin")
				if !reached {
					w.unpublished(up, "object.bin")
					return
				}
				if got, err := up.end(); got != "Created\n201" || err != nil {
					var at report
					next.ask("state", &at)
					b.ask("state", &r)
					t.Fatalf("answer %q, %v; revivals %v here, %v at the Backup", got, err, at.Revivals, r.Revivals)
				}
				if b.ask("state", &r); r.Revivals[reviveOK] != 1 {
					t.Errorf("revivals %v: want one", r.Revivals)
				}
				w.once("b", b, "object.bin", body)
				w.noResets()
			})
		}
	}
}
