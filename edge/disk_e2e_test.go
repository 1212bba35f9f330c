//go:build e2e

package edge

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// disk gives a site a small file system of its own for its uploads. On tmpfs a whole object
// is set aside when it begins; ext2 cannot do that, and is found full in its middle.
func (w *world) disk(site, kind string, megabytes int) {
	w.t.Helper()
	dir := filepath.Join(w.dir, "up-"+site)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if kind == "tmpfs" {
		w.run(fmt.Sprintf("mount -t tmpfs -o size=%dm none %s", megabytes, dir))
	} else {
		image := filepath.Join(w.dir, site+".ext2")
		w.run(fmt.Sprintf("truncate -s %dM %s", megabytes, image))
		w.run("mkfs.ext2 -q -m 0 " + image)
		w.run("mount -t ext2 -o loop " + image + " " + dir)
	}
	w.t.Cleanup(func() { // behind those of the processes, which have it open
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			w.t.Errorf("umount: %v: %s", err, out)
		}
	})
}

// TestUploadDiskFull: an upload meets a full disk, here or at its Backup. The client is told
// so by 507, and not cut off; another upload goes on, the next ones have room again, and
// nothing is left of the one that failed.
func TestUploadDiskFull(t *testing.T) {
	for i, tc := range []struct {
		name, site, kind string
		sealed           bool
	}{
		{"before it begins", "a", "tmpfs", false}, {"before it begins, at its Backup", "b", "tmpfs", false},
		{"in its middle", "a", "ext2", false}, {"in its middle, at its Backup", "b", "ext2", false},
		{"over TLS, in its middle", "a", "ext2", true}, {"over TLS, in its middle, at its Backup", "b", "ext2", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, vip := newWorld(t), e2eFamilies[i%2].vip
			w.disk(tc.site, tc.kind, 8)
			takers, upload := w.takers, w.upload
			if tc.sealed {
				takers, upload = w.sealedTakers, w.sealedUpload
			}
			a, b := takers(nil, nil)
			small, large := randomBody(2<<20, 1), randomBody(16<<20, 2)
			var before, after census
			if got, err := upload(vip, "/first.bin", small[:1<<20]).end(); got != "Created\n201" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			a.ask("census", &before)
			other := upload(vip, "/other.bin", small)
			given := make(chan struct{})
			go func() {
				defer close(given)
				other.give(len(small) / 2)
			}()
			var r report
			w.await("half of the other upload", func() bool { b.ask("state", &r); return r.Staged >= int64(len(small))/4 })
			if got, err := upload(vip, "/large.bin", large).end(); !strings.HasSuffix(got, "507") || err != nil {
				t.Errorf("answer %q, %v: want 507, and no broken connection", got, err)
			}
			for _, site := range []string{"a", "b"} {
				w.await("the other upload alone at "+site, func() bool { return len(w.staged(site)) == 1 })
			}
			<-given
			if got, err := other.end(); got != "Created\n201" || err != nil {
				t.Errorf("the other upload: %q, %v", got, err)
			}
			if got, err := upload(vip, "/next.bin", small).end(); got != "Created\n201" || err != nil {
				t.Errorf("the next upload: %q, %v", got, err)
			}
			for _, site := range []string{"a", "b"} {
				w.await("nothing staged at "+site, func() bool { return len(w.staged(site)) == 0 })
				if got := w.published(site, "large.bin"); got != nil {
					t.Errorf("%d octets of the failed one are published at %s", len(got), site)
				}
			}
			w.await("no session", func() bool { a.ask("count", &after); return after.Sessions == 0 })
			a.ask("census", &after)
			if a.ask("state", &r); r.Mine != 0 || r.Uploads["507"] != 1 || after.Descriptors > before.Descriptors+descriptorsMore {
				t.Errorf("%d octets staged, ended %v, %d descriptors, %d before", r.Mine, r.Uploads, after.Descriptors, before.Descriptors)
			}
			if !tc.sealed { // there curl may close before it has read the site's close_notify
				w.noResets()
			}
		})
	}
}
