//go:build e2e

package e2e

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2EStart starts labs as root and as an ordinary user and ends them in the
// ways they may end: what stays afterwards is asserted at the end of each.
func TestE2EStart(t *testing.T) {
	t.Run("nobody, interrupted", func(t *testing.T) {
		l := startAs(t, "nobody")
		l.awaitReady()
		// Its units speak to its user alone, so it is settled when its clients say so.
		for i, region := range regions() {
			l.servedBy(region, sites()[i])
		}
		testHostAnswers(t, l)
	})
	t.Run("nobody, killed while it starts", func(t *testing.T) {
		l := startAs(t, "nobody")
		l.await(readyIn, "the store is up", func() error {
			if !strings.Contains(l.out.text(), "✓ etcd") {
				return errors.New(l.out.text())
			}
			return nil
		})
		l.killed()
	})
	t.Run("root, killed", func(t *testing.T) {
		l := startLab(t)
		l.killed()
	})
}

// startAs starts a lab as another user, from a copy of the binary which that user
// may read, with a state directory which it owns.
func startAs(t *testing.T, name string) *lab {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	dir := stateDir(t)
	l := newLab(t, filepath.Join(dir, "lab"))
	bin := filepath.Join(dir, "rhumb")
	err = errors.Join(err1, err2, copyProgram(binary(t), bin), os.Mkdir(l.dir, 0o755), os.Chown(l.dir, int(uid), int(gid)))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "lab", "--dir", l.dir)
	cmd.Dir = l.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	l.start(cmd)
	return l
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// killed ends the lab by SIGKILL to the process that was started, which can do
// nothing about it: the kernel takes the rest.
func (l *lab) killed() {
	l.t.Helper()
	before := l.inventory()
	if len(before.procs) < 5 {
		l.t.Errorf("only %d processes of the lab found: %v", len(before.procs), before.procs)
	}
	l.line.eventf("SIGKILL to one of %d processes", len(before.procs))
	if err := l.cmd.Process.Kill(); err != nil {
		l.t.Fatal(err)
	}
	select {
	case <-l.end:
	case <-time.After(patience):
		l.t.Fatal("the lab does not end on SIGKILL")
	}
	l.assertGone(before)
}
