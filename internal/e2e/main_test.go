//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// envAgent holds the order of an agent; a test binary that finds it is one.
const envAgent = "RHUMB_E2E_AGENT"

// TestMain runs as agent inside a lab's node, or finds the binary under test and
// runs the tests. Making namespaces, daemons and all needs root: without it the
// tests fail rather than pass unseen.
func TestMain(m *testing.M) {
	if order := os.Getenv(envAgent); order != "" {
		os.Exit(runAgent(order))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: the scenarios start foreign daemons and need root")
		return 1
	}
	if os.Getenv("RHUMB_BIN") == "" {
		dir, err := os.MkdirTemp("", "rhumb-e2e-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := buildBinary(dir); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	return m.Run()
}

// buildBinary builds the product once and names it in RHUMB_BIN. The directory is
// readable by everybody, since one scenario starts it as an ordinary user.
func buildBinary(dir string) error {
	bin := filepath.Join(dir, "rhumb")
	cmd := exec.Command("go", "build", "-o", bin, "rhumb/cmd/rhumb")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return errors.Join(os.Chmod(dir, 0o755), os.Setenv("RHUMB_BIN", bin))
}

// patience is how long an event is awaited that has no bound of its own: it costs nothing
// when the event comes, and a busy machine may take its time. Where a bound is what a test
// shows, the test measures and compares; it does not lose patience.
const patience = time.Minute

// promised is a bound of what Rhumb promises, as it is judged: in the long form as it
// stands. The short one runs on whatever machine there is, beside other tests, and allows
// four times as much, since the processor's part in it is not Rhumb's.
func promised(bound time.Duration) time.Duration {
	if os.Getenv("RHUMB_SOAK") != "" {
		return bound
	}
	return 4 * bound
}

// rounds is how often a scenario of faults is played.
func rounds() int {
	if os.Getenv("RHUMB_SOAK") != "" {
		return 5
	}
	return 1
}
