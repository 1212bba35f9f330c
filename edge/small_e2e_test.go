//go:build e2e

package edge

import "testing"

// smallRoom is the receive buffer of a client that has room for one segment.
const smallRoom = 2 << 10

// TestSiteLossSmallRoom: clients with next to no room for what they have not read are sent
// segments of which that room holds two, before the loss of their site and behind it. Of larger
// ones each would wait for the kernel's probe timer, since a client that reads offers less at a time.
func TestSiteLossSmallRoom(t *testing.T) {
	for _, f := range families(1) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 40<<10)
			x.N, x.VIP, x.Buffer, x.Gated, x.Hold = 6, f.vip, smallRoom, true, 30<<10
			a, b := w.sites(func(x *agentArgs) { x.Backups = true })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			w.lose("a", a)
			b.ask("down a", &word)
			var all []revived
			w.await("revivals", func() bool { b.ask("revived", &all); return len(all) >= x.N })
			load.tell("go")
			w.await("segments of which the clients' room holds two", func() bool {
				b.ask("revived", &all)
				for _, r := range all {
					if r.MSS > smallRoom/2 {
						return false
					}
				}
				return true
			})
			load.tell("end")
			w.finish(load, x.N)
			w.noResets()
		})
	}
}
