package health

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rhumb/placement"
)

// program writes a shell script; the probe starts it as it would any program.
func program(t *testing.T, dir, body string) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "check")
	if err != nil {
		t.Fatal(err)
	}
	name := f.Name()
	fmt.Fprintf(f, "#!/bin/sh\n%s\n", body)
	f.Close()
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func scriptCheck(command string, args ...string) placement.Check {
	return placement.Check{Name: "script", Script: &placement.ScriptCheck{Command: command, Args: args}}
}

// TestScriptExits: what an exit says.
func TestScriptExits(t *testing.T) {
	dir := t.TempDir()
	s := scriptProber{dir: dir}
	for _, c := range []struct {
		body  string
		kind  string
		state placement.State
		words string
	}{
		{"exit 0", "ok", placement.Up, ""},
		{"echo all is well", "ok", placement.Up, ""},
		{"echo 12 of 20 disks gone; exit 1", "script", placement.Down, "12 of 20 disks gone"},
		{"echo rebuilding >&2; exit 2", "degraded", placement.Degraded, "rebuilding"},
		{"exit 3", "exit", placement.Unknown, "exit status 3"},
		{"exit 127", "exit", placement.Unknown, "127"},
		{"kill -SEGV $$", "exit", placement.Unknown, "signal"},
		{`printf 'a\033[31mred\nsecond'; exit 1`, "script", placement.Down, ": a[31mred"},
	} {
		r := s.probe(within(t, 20*time.Second), target("192.0.2.1:80", scriptCheck(program(t, dir, c.body))))
		if r.Kind != c.kind || r.State != c.state || !strings.Contains(r.Cause, c.words) || strings.Contains(r.Cause, "second") {
			t.Errorf("%s: %+v, want %s, %v, %q", c.body, r, c.kind, c.state, c.words)
		}
	}
}

// TestScriptsWorld: arguments as given, an environment of three, the root directory,
// a group of its own, nothing to read.
func TestScriptsWorld(t *testing.T) {
	t.Setenv("SECRET", "of the unit")
	dir := t.TempDir()
	out := filepath.Join(t.TempDir(), "world")
	prog := program(t, dir, `{ for a in "$@"; do echo "arg:$a"; done; env | sort; pwd; echo "group:$(cut -d' ' -f5 /proc/self/stat) $$"; cat; grep CapAmb /proc/self/status; } > `+out)
	args := []string{"$HOME; echo gone", "*", "two words", ""}
	tg := target("[2001:db8::1]:8443", scriptCheck(prog, args...))
	if r := (scriptProber{dir: dir}).probe(within(t, 20*time.Second), tg); !r.OK() {
		t.Fatalf("%+v", r)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	have := string(b)
	for _, a := range args {
		if !strings.Contains(have, "arg:"+a+"\n") {
			t.Errorf("argument %q did not arrive", a)
		}
	}
	for _, want := range []string{"RHUMB_ADDRESS=2001:db8::1\n", "RHUMB_PORT=8443\n", "RHUMB_HOST=" + wwwHost + "\n", "\n/\n", "CapAmb:\t0000000000000000\n"} {
		if !strings.Contains(have, want) {
			t.Errorf("lacks %q:\n%s", want, have)
		}
	}
	if strings.Contains(have, "SECRET") {
		t.Errorf("the unit's environment was handed down:\n%s", have)
	}
	var group, pid int
	if _, err := fmt.Sscanf(have[strings.Index(have, "group:"):], "group:%d %d", &group, &pid); err != nil || group != pid || group == syscall.Getpgrp() {
		t.Errorf("group %d, pid %d, ours %d (%v)", group, pid, syscall.Getpgrp(), err)
	}
}

// timeUp is a time limit which is over when a file is there and whole: a script on a busy
// machine takes as long as it takes to begin.
type timeUp struct {
	context.Context
	up chan struct{}
}

func (c timeUp) Done() <-chan struct{} { return c.up }

func (c timeUp) Err() error {
	select {
	case <-c.up:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// upOn ends the time at a file's first line, or when its patience does.
func upOn(t *testing.T, file string) context.Context {
	c := timeUp{t.Context(), make(chan struct{})}
	go func() {
		defer close(c.up)
		for range 6000 {
			if b, _ := os.ReadFile(file); strings.HasSuffix(string(b), "\n") {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return c
}

// TestScriptsGroupDies: at the timeout everything that the script started is killed,
// and what it leaves behind at its end as well; nobody waits for an open pipe.
func TestScriptsGroupDies(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, body string
		kind       string
	}{
		{"late", "sleep 300 & echo $! > %s; sleep 300", "timeout"},
		{"deaf", "trap '' TERM INT HUP; sleep 300 & echo $! > %s; while :; do sleep 300; done", "timeout"},
		{"leaves a child behind", "sleep 300 & echo $! > %s; exit 0", "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			prog := program(t, dir, fmt.Sprintf(c.body, file))
			limit := within(t, 2*time.Minute)
			if c.kind == "timeout" {
				limit = upOn(t, file)
			}
			r := scriptProber{dir: dir}.probe(limit, target("192.0.2.1:80", scriptCheck(prog)))
			if r.Kind != c.kind || r.Took > time.Minute { // who waits for the child, or its pipe, waits longer
				t.Errorf("%+v, want %s", r, c.kind)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			child, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				t.Fatal(err)
			}
			if !awaitGone(child) {
				t.Errorf("process %d of the script lives on", child)
				syscall.Kill(child, syscall.SIGKILL)
			}
		})
	}
}

// awaitGone waits until a process has ended: a killed one goes when its turn comes,
// and one without a parent stays a zombie until init looks.
func awaitGone(pid int) bool {
	for range 6000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// TestScriptsTalk: more output than is kept hinders nobody.
func TestScriptsTalk(t *testing.T) {
	dir := t.TempDir()
	r := scriptProber{dir: dir}.probe(within(t, 20*time.Second), target("192.0.2.1:80", scriptCheck(program(t, dir, "head -c 300000 /dev/zero | tr '\\0' x; exit 1"))))
	if r.Kind != "script" || r.Bytes != outputLimit {
		t.Errorf("kind %s, %d bytes, want %d", r.Kind, r.Bytes, outputLimit)
	}
}

// TestScriptsElsewhere: the node says which programs may run.
func TestScriptsElsewhere(t *testing.T) {
	dir := t.TempDir()
	mark := filepath.Join(t.TempDir(), "ran")
	inside := program(t, dir, "touch "+mark)
	for _, c := range []struct{ dir, command string }{
		{"", inside}, {dir + "/below", inside}, {dir, "/bin/true"}, {dir, dir + "/../" + filepath.Base(filepath.Dir(inside)) + "/" + filepath.Base(inside)},
		{dir, dir}, {dir[:len(dir)-1], inside},
	} {
		r := scriptProber{dir: c.dir}.probe(within(t, 20*time.Second), target("192.0.2.1:80", scriptCheck(c.command)))
		if r.Kind != "forbidden" || r.State != placement.Unknown {
			t.Errorf("%s in %q: %+v", c.command, c.dir, r)
		}
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it ran all the same")
	}
	r := scriptProber{dir: dir}.probe(within(t, 20*time.Second), target("192.0.2.1:80", scriptCheck(dir+"/nothing")))
	if r.Kind != "own" || r.State != placement.Unknown {
		t.Errorf("a program that is not there: %+v", r)
	}
}

// TestFourScriptsAtOnce: the fifth waits, and the wait is not part of its timeout.
func TestFourScriptsAtOnce(t *testing.T) {
	s := newScheduler(t.Context(), nil, 100, nil)
	var now, most atomic.Int32
	gate := make(chan struct{})
	done := make(chan Result)
	for range 9 {
		go func() {
			r, _ := s.look(t.Context(), countingProber(&now, &most, gate), target("192.0.2.1:80", scriptCheck("/x")))
			done <- r
		}()
	}
	for range 9 {
		gate <- struct{}{}
		<-done
	}
	if n := most.Load(); n > scriptsAt {
		t.Errorf("%d scripts ran at once, want %d at most", n, scriptsAt)
	}
}

// countingProber counts who runs, until the gate lets one go.
func countingProber(now, most *atomic.Int32, gate <-chan struct{}) Prober {
	return func(context.Context, Target) Result {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-gate
		return passed(Result{})
	}
}
