//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leftovers is what a running lab has of the machine: processes, and the files
// of namespaces that are mounted somewhere.
type leftovers struct {
	procs  map[int]string // pid → start time and command
	spaces map[string]bool
	mounts []string
}

// inventory finds the lab's processes by the mark in their environment, which all
// inherit, and by the PID namespaces which those are in: a daemon may have cleared
// its environment. Numbers of namespaces are used again by the kernel, so only
// what was seen while the lab lived counts as its own.
func (l *lab) inventory() leftovers {
	v := leftovers{procs: map[int]string{}, spaces: map[string]bool{}}
	own, _ := os.Readlink("/proc/self/ns/pid")
	inside := map[string]bool{}
	all := pids()
	for _, pid := range all {
		env, _ := os.ReadFile(procFile(pid, "environ"))
		if !bytes.Contains(env, []byte(l.mark)) {
			continue
		}
		v.procs[pid] = describe(pid)
		if ns, err := os.Readlink(procFile(pid, "ns/pid")); err == nil && ns != own {
			inside[ns] = true
		}
	}
	for _, pid := range all {
		if ns, err := os.Readlink(procFile(pid, "ns/pid")); err == nil && inside[ns] {
			v.procs[pid] = describe(pid)
		}
	}
	maps.DeleteFunc(v.procs, func(pid int, what string) bool { return what == "" || pid == os.Getpid() })
	for pid := range v.procs {
		v.addSpaces(pid)
	}
	v.mounts = l.mountsOf(v.spaces)
	return v
}

// addSpaces notes the namespaces of every thread of a process that are not ours.
func (v *leftovers) addSpaces(pid int) {
	links, _ := filepath.Glob(procFile(pid, "task/*/ns/*"))
	for _, link := range links {
		ns, err := os.Readlink(link)
		own, _ := os.Readlink("/proc/self/ns/" + strings.TrimSuffix(filepath.Base(link), "_for_children"))
		if err == nil && ns != own {
			v.spaces[ns] = true
		}
	}
}

// mountsOf lists mounts here of those namespaces, or below the lab's directory.
func (l *lab) mountsOf(spaces map[string]bool) []string {
	var out []string
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && (spaces[f[3]] || strings.HasPrefix(f[4], l.dir)) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// assertGone fails the test for every process and mount that was there while the
// lab lived and still is. The kernel takes a moment to reap a PID namespace.
func (l *lab) assertGone(before leftovers) {
	l.t.Helper()
	var left []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if left = l.stillThere(before); len(left) == 0 {
			l.line.eventf("nothing is left: %d processes, %d namespaces gone", len(before.procs), len(before.spaces))
			return
		}
	}
	l.t.Errorf("the lab left behind:\n%s", strings.Join(left, "\n"))
}

func (l *lab) stillThere(before leftovers) []string {
	var left []string
	for _, pid := range slices.Sorted(maps.Keys(before.procs)) {
		if describe(pid) == before.procs[pid] {
			left = append(left, fmt.Sprintf("process %d: %s", pid, before.procs[pid]))
		}
	}
	now := l.inventory()
	for _, pid := range slices.Sorted(maps.Keys(now.procs)) {
		if before.procs[pid] != now.procs[pid] {
			left = append(left, fmt.Sprintf("process %d: %s", pid, now.procs[pid]))
		}
	}
	for _, m := range l.mountsOf(before.spaces) {
		if slices.Contains(before.mounts, m) {
			left = append(left, "mount "+m)
		}
	}
	return append(left, now.mounts...)
}

func pids() []int {
	var out []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// describe tells a process from a later one of the same number; empty when there
// is none.
func describe(pid int) string {
	stat, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 20 || f[0] == "Z" {
		return ""
	}
	cmd, _ := os.ReadFile(procFile(pid, "cmdline"))
	return f[19] + " " + strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
}
