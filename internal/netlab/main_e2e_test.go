//go:build e2e

package netlab

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(envHelper); socket != "" {
		if err := playLab(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(RunTests(m))
}

// build makes a Net which ends with the test.
func build(t *testing.T, topo Topology) *Net {
	t.Helper()
	n, err := Build(t.Context(), topo, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func mustHost(t *testing.T, n *Net, name string) *Host {
	t.Helper()
	h, err := n.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// output runs a program in a host and returns what it says.
func output(t *testing.T, h *Host, argv ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Run(cmd); err != nil {
		t.Fatalf("%s in %s: %v\n%s", argv, h.Name, err, out.String())
	}
	return out.String()
}
