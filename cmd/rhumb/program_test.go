package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestProgramPages: of a process's mappings those of its program alone are taken that hold
// what the file holds: not what is written to, not what a linker has moved, nobody else's.
func TestProgramPages(t *testing.T) {
	const smaps = `00400000-018a2000 r-xp 00000000 fe:00 1234                               /usr/bin/rhumb
Size:              21128 kB
Rss:               18272 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
018a2000-02edf000 r--p 014a2000 fe:00 1234                               /usr/bin/rhumb
Rss:               15884 kB
Anonymous:             0 kB
02edf000-02fdb000 rw-p 02adf000 fe:00 1234                               /usr/bin/rhumb
Anonymous:             0 kB
03000000-03100000 r--p 02bdf000 fe:00 1234                               /usr/bin/rhumb
Anonymous:            96 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:00 99                         /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
Anonymous:             0 kB
`
	got, err := programPages(strings.NewReader(smaps), "/usr/bin/rhumb")
	if want := []mapped{{0x400000, 0x18a2000}, {0x18a2000, 0x2edf000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	if got, err := programPages(strings.NewReader("zzz r-xp 0 fe:00 1 /usr/bin/rhumb\n"), "/usr/bin/rhumb"); err == nil {
		t.Errorf("nonsense is %x", got)
	}
}

// TestShedProgram: a process that has given its program's pages back goes on.
func TestShedProgram(t *testing.T) {
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer smaps.Close()
	if spans, err := programPages(smaps, file); err != nil || len(spans) == 0 {
		t.Fatalf("of this program %x is found, %v", spans, err)
	}
	if err := shedProgram(); err != nil {
		t.Error(err)
	}
}
