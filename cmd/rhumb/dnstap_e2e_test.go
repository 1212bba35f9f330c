//go:build e2e

package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestDnstapPeers: programs of libfstrm and of dnstap's authors take the stream and read
// it: every query and reply with its addresses, none lost.
func TestDnstapPeers(t *testing.T) {
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "tap.sock"), filepath.Join(dir, "tap.fstrm")
	capture := exec.Command("fstrm_capture", "-t", "protobuf:dnstap.Dnstap", "-u", socket, "-w", file)
	var said bytes.Buffer
	capture.Stdout, capture.Stderr = &said, &said
	capture.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := capture.Start(); err != nil {
		t.Fatalf("%v (Debian package fstrm-bin)", err)
	}
	defer capture.Process.Kill()
	addr, told, run := tappedServer(t, socket)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { run(ctx) })
	eventually(t, "the collector listens", func() bool { _, _, listens := told.Counts(); return listens })
	askTapped(t, addr, 50)
	cancel()
	all.Wait() // the end was said, and confirmed
	capture.Process.Signal(syscall.SIGTERM)
	capture.Wait()
	out, err := exec.Command("dnstap-ldns", "-r", file).CombinedOutput()
	if err != nil {
		t.Fatalf("dnstap-ldns: %v (Debian package of that name)\n%s\n%s", err, out, said.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for what, want := range map[string]int{" AQ ": 51, " AR ": 51, " UDP ": 100, " TCP ": 2, " 127.0.0.1 ": 102, "demo.test.": 102} {
		if n := strings.Count(strings.Join(lines, "\n"), what); n != want {
			t.Errorf("%d of %q, want %d:\n%s", n, what, want, strings.Join(lines[:min(4, len(lines))], "\n"))
		}
	}
}
