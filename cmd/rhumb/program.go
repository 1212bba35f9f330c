package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// To start touches nearly all of a program of forty megabytes: each package sets up its
// tables, and the kernel maps sixteen pages of the file for one that is wanted. To serve
// takes a third of that. So the pages are given back once the server has started: whoever
// is touched again is mapped again, from the kernel's cache, within a microsecond.

// mapped is a part of the address space.
type mapped struct{ from, to uintptr }

// programPages finds, in a process's smaps (proc_pid_smaps(5)), where a file is mapped that
// nobody writes to. Where something was written all the same, as by a linker that moves the
// program, it would be lost: that is no page of the file any more.
func programPages(smaps io.Reader, file string) (out []mapped, err error) {
	in := bufio.NewScanner(smaps)
	var at mapped
	ours := false
	for in.Scan() {
		words := strings.Fields(in.Text())
		switch {
		case len(words) >= 5 && !strings.HasSuffix(words[0], ":"):
			if _, err := fmt.Sscanf(words[0], "%x-%x", &at.from, &at.to); err != nil {
				return nil, fmt.Errorf("smaps: %q: %w", in.Text(), err)
			}
			ours = strings.Join(words[5:], " ") == file && strings.HasPrefix(words[1], "r-")
		case ours && len(words) == 3 && words[0] == "Anonymous:" && words[1] == "0":
			out = append(out, at)
		}
	}
	return out, in.Err()
}

// shedProgram gives the pages of the program back that are mapped by now.
func shedProgram() error {
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer smaps.Close()
	spans, err := programPages(smaps, file)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range spans {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, s.from, s.to-s.from, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, fmt.Errorf("madvise %x-%x: %w", s.from, s.to, errno))
		}
	}
	return errors.Join(errs...)
}
