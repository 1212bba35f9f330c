//go:build e2e

package house

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPromtool has Prometheus itself read the alert rules, and run their tests: that each
// fires on series which must raise it, and is quiet on those which must not.
func TestPromtool(t *testing.T) {
	for _, args := range [][]string{
		{"check", "rules", "--lint-fatal", "alerts.yaml"},
		{"test", "rules", "alerts_test.yaml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = filepath.Join(root(t), "etc/prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
