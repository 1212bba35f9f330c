//go:build e2e

package forward

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// userNSEnv marks the tests' second run, inside a user namespace.
const userNSEnv = "RHUMB_FORWARD_TEST_USERNS"

// TestUserNamespace runs the main tests again as an ordinary user's root,
// where /dev/net/tun can't be opened: by veth pairs and packet sockets.
func TestUserNamespace(t *testing.T) {
	if os.Getenv(userNSEnv) != "" {
		t.Fatal("asked to nest")
	}
	const nobodyID = 65534
	dir, err := os.MkdirTemp("", "rhumb-forward-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, nobodyID, nobodyID); err != nil {
		t.Fatalf("the test needs root, to become somebody else: %v", err)
	}
	binary := filepath.Join(dir, "forward.test")
	if err := copySelf(binary); err != nil {
		t.Fatal(err)
	}
	// What depends on the namespace is how strays are read and given back, in
	// either family, and how all of it ends; the rest is the same code.
	tests := "^(TestDrainForwarded|TestStopRemovesAll)$|^TestNobodyIsReset$/^" + vip6 + "$"
	if soak() {
		tests = "^(TestDrainWithoutRulesResets|TestFlipForwarded|TestDrainForwarded|TestNobodyIsReset|TestKilledAgentLeavesKernel|TestUploadForwarded|TestStopRemovesAll)$"
	}
	cmd := exec.Command(binary, "-test.timeout", "4m", "-test.run", tests)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), userNSEnv+"=1", "TMPDIR="+dir, "HOME="+dir)
	var results, log strings.Builder
	cmd.Stdout, cmd.Stderr = &results, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobodyID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobodyID, Size: 1}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		Pdeathsig:   syscall.SIGKILL,
	}
	// Without -test.v only what failed is told, and why: that comes last.
	if err = cmd.Run(); err != nil {
		t.Fatalf("inside the namespace, the log's end:\n%s\nand what failed:\n%s\n%v", tail(log.String(), 30), tail(results.String(), 60), err)
	}
	if !strings.Contains(log.String(), "tun=false") || strings.Contains(log.String(), "tun=true") {
		t.Errorf("TUN was used, the test proves nothing:\n%s", tail(log.String(), 10))
	}
}

// tail is the last lines of a text.
func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// copySelf puts this binary where another user may run it.
func copySelf(path string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, self); err != nil {
		return err
	}
	return file.Close()
}
