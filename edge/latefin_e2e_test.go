//go:build e2e

package edge

import (
	"fmt"
	"testing"
)

// TestLateEndOfDeadProcess: a process dies, its site is held for dead, and its clients rest at
// another one when the host ends what the process had: nobody kept the ends back any longer. The clients
// take no notice, and nor do they when another process begins there.
func TestLateEndOfDeadProcess(t *testing.T) {
	t.Parallel() // it waits most of the time
	for i, bare := range []bool{false, true} {
		t.Run(fmt.Sprintf("without a store: %t", bare), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			x := w.object("film.mp4", 1<<20)
			x.N, x.VIP, x.Piece, x.Hold = 10, e2eFamilies[i].vip, 4<<10, 64<<10
			a, b := w.sites(func(x *agentArgs) { x.Backups, x.Bare = true, bare })
			next := w.agent("a", "b", func(x *agentArgs) { x.Backups, x.Bare, x.Standby = true, bare, true })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.resting(a, b, x)
			if !bare {
				w.stored(a, x.N)
			}
			a.kill()
			w.route("b")
			b.ask("down a", &word)
			var r report
			w.await("revivals", func() bool { b.ask("state", &r); return r.Revivals[reviveOK] >= float64(x.N) })
			w.await("ends that the clients take for old", func() bool { return w.counter("c", "TcpExtPAWSEstab") >= x.N })
			next.tell("begin")
			load.tell("end")
			w.finish(load, x.N)
			w.noResets()
		})
	}
}

// resting waits until all of the load's clients rest at their hold, and the Backup knows it.
func (w *world) resting(a, b *process, x loadArgs) {
	w.t.Helper()
	var owner, backup report
	w.await("requests", func() bool { a.ask("state", &owner); return owner.Requests >= x.Hold/x.Piece*int64(x.N) })
	w.backed(a, x.N)
	w.await("the Backup's knowledge of all that was asked", func() bool {
		a.ask("state", &owner)
		b.ask("state", &backup)
		return len(owner.Turns) == x.N && fmt.Sprint(owner.Turns) == fmt.Sprint(backup.Told)
	})
}
