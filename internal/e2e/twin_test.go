//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a poisoned input is here: a zone that two name servers have no memory for. The
// twin has as much as it needs, and would serve it.
const (
	twinDelay   = 10 * time.Second
	poisonNames = 300_000
	// scarce is what the name servers may have of memory, in octets.
	scarce = 200 << 20
)

// twinFleet is a director, two name servers that are started anew when they end, as
// systemd does, and a twin, on one machine.
type twinFleet struct {
	*machine
	t *testing.T
}

func newTwinFleet(t *testing.T) *twinFleet {
	f := &twinFleet{newMachine(t, "twin"), t}
	f.write("fleet.yaml", "version: 1\nmode: act\nzones: {dir: ., serve: {demo.test: {level: low}}}\nsites: {ams1: {at: [52.3, 4.9], number: 1, region: europe}}\n")
	f.node("d", "127.0.0.1", "placement", "store: {etcd: {embedded: {d: 127.0.0.1}}}")
	for _, n := range []string{"a", "b"} {
		f.node(n, map[string]string{"a": "127.0.0.2", "b": "127.0.0.3"}[n], "authdns", "store: {etcd: {endpoints: [\"http://127.0.0.1:2379\"]}}")
	}
	f.node("t", "127.0.0.4", "authdns", fmt.Sprintf("store: {etcd: {endpoints: [\"http://127.0.0.1:2379\"]}}\ntwin: {delay: %s}", twinDelay))
	return f
}

func (f *twinFleet) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *twinFleet) node(name, addr, role, more string) {
	f.write(name+".yaml", fmt.Sprintf("version: 1\nnode: {name: %[1]s, site: ams1, roles: [%[3]s], data_dir: data-%[1]s}\n"+
		"listen: {low: [\"%[2]s:53\"], admin: run-%[1]s}\n%[4]s\n", name, addr, role, more))
}

// zone applies the zone with another address, and with so many more names.
func (f *twinFleet) zone(serial int, more int) {
	f.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN demo.test.\n$TTL 60\n@ SOA ns hostmaster %[1]d 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.%[1]d\n", serial)
	for i := range more {
		fmt.Fprintf(&b, "h%d A 192.0.2.9\n", i)
	}
	f.write("demo.test.zone", b.String())
	soon(f.t, fmt.Sprintf("zone %d is applied", serial), func() error {
		out, err := f.command(binary(f.t), "--server", f.socket("d"), "apply", filepath.Join(f.dir, "fleet.yaml"), "--yes", "--override", "shrink", "--note", "the test mends it").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

func (f *twinFleet) socket(node string) string {
	unit := map[string]string{"d": "rhumb-director"}[node]
	if unit == "" {
		unit = "rhumb-dns"
	}
	return filepath.Join(f.dir, "run-"+node, unit+".sock")
}

// says awaits an answer of a node for www; "" stands for none.
func (f *twinFleet) says(addr, want string) {
	f.t.Helper()
	soon(f.t, fmt.Sprintf("%s says %q", addr, want), func() error {
		if got := f.ask(addr); got != want {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
}

func (f *twinFleet) ask(addr string) string {
	out, err := f.command("dig", "@"+addr, "www.demo.test", "A", "+short", "+tries=1", "+time=1").CombinedOutput()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func (f *twinFleet) rhumb(args ...string) string {
	out, err := f.command(append([]string{binary(f.t), "--server", f.socket("t")}, args...)...).CombinedOutput()
	if err != nil {
		return err.Error() + ": " + string(out)
	}
	return string(out)
}

// TestE2ETwin: a zone that ends every other name server, over and over, does not come to
// the twin, which answers by what was in force before; once it is mended, and an operator
// has said so, the twin follows again, after its delay.
func TestE2ETwin(t *testing.T) {
	t.Parallel()
	f := newTwinFleet(t)
	f.start(binary(t), "serve", "--config", filepath.Join(f.dir, "d.yaml"))
	run := `while :; do prlimit --data="$0" "$@"; sleep 0.2; done`
	var poor []*exec.Cmd
	for _, n := range []string{"a", "b"} {
		poor = append(poor, f.start("sh", "-c", run, fmt.Sprint(scarce), binary(t), "serve", "--config", filepath.Join(f.dir, n+".yaml")))
	}
	enrich := sync.OnceFunc(func() {
		for _, p := range poor {
			syscall.Kill(-p.Process.Pid, syscall.SIGKILL) // the shell and what it has started
		}
	})
	t.Cleanup(enrich)
	twin := func() { f.start(binary(t), "serve", "--config", filepath.Join(f.dir, "t.yaml")) }
	twin()
	f.zone(1, 0)
	for _, addr := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		f.says(addr, "192.0.2.1") // the twin knows of no past
	}
	applied := time.Now()
	f.zone(2, 0)
	f.says("127.0.0.2", "192.0.2.2")
	if got := f.ask("127.0.0.4"); got != "192.0.2.1" && time.Since(applied) < twinDelay {
		t.Errorf("the twin says %q at once", got)
	}
	f.says("127.0.0.4", "192.0.2.2")
	if took := time.Since(applied); took < twinDelay {
		t.Errorf("the twin followed after %s, want no sooner than after %s", took, twinDelay)
	}

	applied = time.Now()
	f.zone(3, poisonNames)
	soon(t, "the feed is held", func() error {
		if out := f.rhumb("status"); !strings.Contains(out, "TwinHeld") || !strings.Contains(out, "crashed at") {
			return errors.New(out)
		}
		return nil
	})
	if took := time.Since(applied); took > twinDelay {
		t.Logf("the wave was seen after %s; a busy machine", took)
	}
	if out := f.rhumb("explain", "www.demo.test", "--client", "192.0.2.77"); !strings.Contains(out, "twin, inputs of ") || !strings.Contains(out, "feed held since") {
		t.Errorf("explain: %s", out)
	}
	// Its time comes and goes, over a kill of the twin as well.
	f.procs[len(f.procs)-1].Process.Kill()
	twin()
	time.Sleep(time.Until(applied.Add(twinDelay + 2*time.Second)))
	f.says("127.0.0.4", "192.0.2.2")
	for _, addr := range []string{"127.0.0.2", "127.0.0.3"} {
		if got := f.ask(addr); got == "192.0.2.3" {
			t.Errorf("%s serves the poison: nothing was tested", addr)
		}
	}
	if out := f.rhumb("twin"); !strings.Contains(out, "held since") {
		t.Errorf("rhumb twin: %s", out)
	}

	// What they have on disk would end them again before they hear of anything better.
	enrich()
	for _, n := range []string{"a", "b"} {
		f.start(binary(t), "serve", "--config", filepath.Join(f.dir, n+".yaml"))
	}
	f.zone(4, 0)
	f.says("127.0.0.2", "192.0.2.4")
	f.says("127.0.0.3", "192.0.2.4")
	released := time.Now()
	if out := f.rhumb("twin", "release", "--reason", "mended"); !strings.Contains(out, "is taken in 10s") {
		t.Errorf("release: %s", out)
	}
	f.says("127.0.0.4", "192.0.2.4")
	if took := time.Since(released); took < twinDelay {
		t.Errorf("the twin took what is new %s after its release", took)
	}
	if out := f.rhumb("status"); strings.Contains(out, "TwinHeld") {
		t.Errorf("still held: %s", out)
	}
}
