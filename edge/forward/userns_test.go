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
	cmd := exec.Command(binary, "-test.v", "-test.run", "^(TestDrainWithoutRulesResets|TestFlipForwarded|TestDrainForwarded|TestNobodyIsReset|TestKilledAgentLeavesKernel|TestUploadForwarded|TestStopRemovesAll)$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), userNSEnv+"=1", "TMPDIR="+dir, "HOME="+dir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobodyID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobodyID, Size: 1}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		Pdeathsig:   syscall.SIGKILL,
	}
	err = cmd.Run()
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "tun=false") || strings.Contains(out.String(), "tun=true") {
		t.Error("TUN was used: the test proves nothing")
	}
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
