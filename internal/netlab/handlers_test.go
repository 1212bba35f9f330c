package netlab

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestFaultOf(t *testing.T) {
	for _, tc := range []struct {
		name string
		kind FaultKind
		args map[string]string
		want Fault
		err  string
	}{
		{"bare", Kill, nil, Fault{Kind: Kill, Node: "ams1"}, ""},
		{"slow by", Slow, map[string]string{"delay": "150ms", "towards": "t-eu"}, Fault{Kind: Slow, Node: "ams1", Towards: "t-eu", Delay: 150 * time.Millisecond}, ""},
		{"lossy", Lossy, map[string]string{"share": "0.25"}, Fault{Kind: Lossy, Node: "ams1", Share: 0.25}, ""},
		{"blackhole", Blackhole, map[string]string{"prefixes": "192.0.2.0/24,2001:db8::/32"}, Fault{Kind: Blackhole, Node: "ams1", Prefixes: prefixes("192.0.2.0/24", "2001:db8::/32")}, ""},
		{"bad delay", Slow, map[string]string{"delay": "much"}, Fault{}, "much"},
		{"bad share", Lossy, map[string]string{"share": "half"}, Fault{}, "half"},
		{"bad prefix", Blackhole, map[string]string{"prefixes": "192.0.2.0"}, Fault{}, "192.0.2.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := faultOf(tc.kind, Request{Node: "ams1", Args: tc.args})
			switch {
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("error %v, want %q", err, tc.err)
			case tc.err == "" && (err != nil || !reflect.DeepEqual(f, tc.want)):
				t.Errorf("%+v, %v; want %+v", f, err, tc.want)
			}
		})
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o755, "notes": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"HOME=/", "PATH=/nowhere:" + dir}
	for name, want := range map[string]string{
		"tool": dir + "/tool", "notes": "", "missing": "", "./local": "./local", "/bin/sh": "/bin/sh",
	} {
		if got, err := lookPath(name, env); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestNodesInOrder(t *testing.T) {
	n := &Net{Topology: forkTopology()}
	n.faults.active = []*activeFault{{Fault: Fault{Kind: Cut, Node: "site"}}}
	views := n.Nodes()
	if len(views) != 3 || views[0].Name != "router" || len(views[0].Addresses) != 4 || views[1].Role != Site {
		t.Errorf("%+v", views)
	}
	if len(views[1].Faults) != 1 || len(views[0].Faults) != 0 {
		t.Errorf("faults: %+v", views)
	}
}

// TestWorkDir: an order given from where the lab's user may not go runs in the root.
func TestWorkDir(t *testing.T) {
	dir := t.TempDir()
	if got := workDir(dir); got != dir {
		t.Errorf("%s: %s", dir, got)
	}
	if got := workDir(filepath.Join(dir, "closed")); got != "/" {
		t.Errorf("a directory that cannot be entered: %s", got)
	}
}
