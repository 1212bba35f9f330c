//go:build e2e

package edge

import "testing"

// TestUploadProcessDies: the process that takes an upload with L2 dies, its host lives, and
// another process takes its place. The upload goes on at the Backup, on the same connection,
// in clear and over TLS, and the object is there once. Where the Backup is out of reach the
// client hears of the end, and nothing is published anywhere.
func TestUploadProcessDies(t *testing.T) {
	for _, f := range families(1) {
		for name, run := range map[string]func(*testing.T, string){
			"in clear":                     func(t *testing.T, vip string) { uploadProcessDies(t, vip, false, true) },
			"over TLS":                     func(t *testing.T, vip string) { uploadProcessDies(t, vip, true, true) },
			"the Backup is out of reach":   func(t *testing.T, vip string) { uploadProcessDies(t, vip, false, false) },
			"over TLS, it is out of reach": func(t *testing.T, vip string) { uploadProcessDies(t, vip, true, false) },
		} {
			t.Run(f.name+", "+name, func(t *testing.T) { run(t, f.vip) })
		}
	}
}

func uploadProcessDies(t *testing.T, vip string, sealed, reached bool) {
	w := newWorld(t)
	takers, send := w.takers, w.upload
	if sealed {
		takers, send = w.sealedTakers, w.sealedUpload
	}
	a, b := takers(nil, nil)
	next := w.agent("a", "b", func(y *agentArgs) {
		y.Backups, y.Uploads, y.Freshness, y.Standby = true, true, FreshL2, true
		if sealed {
			y.Export = ExportGroup
		}
	})
	body := randomBody(4<<20, 4)
	up := send(vip, "/object.bin", body, "-H", "If-None-Match: *")
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
	if !sealed { // curl may close before it has read the site's close_notify
		w.noResets()
	}
}
