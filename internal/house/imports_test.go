package house

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// chain are the imports between children which are drawn, not hidden.
var chain = map[string][]string{
	"placement/director": {"placement/decide"},
	"placement/node":     {"placement/decide"},
	"placement/decide":   {"placement/solve"},
	"edge/feed":          {"edge/token"},
}

// leaves import nothing of ours.
var leaves = []string{"placement/lpm", "placement/solve", "health/detect", "edge/content", "edge/fdstore", "edge/frame", "edge/seal", "edge/token", "edge/resume", "edge/reserve", "edge/handsock"}

// TestImports holds the one import rule: placement imports lpm alone; a part
// imports placement and its own children; a child imports placement and lpm;
// what must meet, meets in cmd/rhumb.
func TestImports(t *testing.T) {
	for _, p := range load(t) {
		for file, f := range p.files {
			for _, imp := range imports(f) {
				if ours, ok := strings.CutPrefix(imp, module+"/"); ok && !mayImport(p.dir, ours) {
					t.Errorf("%s imports %s: not allowed from %s", file, imp, p.dir)
				}
			}
		}
	}
}

func mayImport(from, to string) bool {
	switch {
	case from == "cmd/rhumb", from == "internal/e2e":
		return true
	case from == "edge/handsock/sample": // stands for a server that is not ours
		return to == "edge/handsock"
	case slices.Contains(leaves, from):
		return false
	case from == "placement":
		return to == "placement/lpm"
	case to == "placement", to == "placement/lpm":
		return true
	case slices.Contains(chain[from], to):
		return true
	case isPart(from):
		return path.Dir(to) == from // its own children
	}
	return false
}

func isPart(dir string) bool {
	return slices.Contains([]string{"authdns", "bgp", "health", "edge"}, dir) || path.Dir(dir) == "internal"
}

// doors says which packages may import a library; a prefix of the import path.
var doors = map[string][]string{
	"github.com/miekg/dns":                     {"authdns", "authdns/dnssec", "authdns/zone", "authdns/transfer", "health", "internal/netlab", "cmd/rhumb"},
	"github.com/osrg/gobgp":                    {"bgp"},
	"github.com/quic-go/":                      {"authdns", "cmd/rhumb"},
	"go.etcd.io/":                              {"placement/store"},
	"github.com/oschwald/":                     {"placement/geo"},
	"github.com/vishvananda/netlink":           {"bgp", "edge", "edge/forward", "edge/vip", "internal/netlab"},
	"github.com/vishvananda/netns":             {"internal/netlab"},
	"github.com/google/nftables":               {"edge/forward", "edge/hold", "edge/silence", "edge/vip", "internal/netlab"},
	"github.com/spf13/cobra":                   {"cmd/rhumb"},
	"github.com/coreos/go-systemd":             {"cmd/rhumb"},
	"github.com/goccy/go-yaml":                 {"internal/config"},
	"github.com/danielgtaylor/huma":            {"internal/api"},
	"go.uber.org/zap":                          {"placement/store"},
	"google.golang.org/grpc":                   {"health", "placement/store"},
	"github.com/prometheus/client_golang/prom": {"authdns", "bgp", "health", "edge", "edge/feed", "edge/forward", "edge/vip", "placement/director", "placement/node", "placement/store", "internal/api", "cmd/rhumb"},
}

func TestLibraryDoors(t *testing.T) {
	for _, p := range load(t) {
		if p.dir == "internal/e2e" {
			continue
		}
		for file, f := range p.files {
			for _, imp := range imports(f) {
				for lib, allowed := range doors {
					if strings.HasPrefix(imp, lib) && !slices.Contains(allowed, p.dir) {
						t.Errorf("%s imports %s; its door is %v", file, imp, allowed)
					}
				}
			}
		}
	}
}

// TestGoBGPFiles keeps the next major version of the library a change of few files.
func TestGoBGPFiles(t *testing.T) {
	for _, p := range load(t) {
		for file, f := range p.files {
			for _, imp := range imports(f) {
				if ok, _ := path.Match("bgp/gobgp*.go", file); strings.HasPrefix(imp, "github.com/osrg/gobgp") && !ok {
					t.Errorf("%s imports %s; only bgp/gobgp*.go may", file, imp)
				}
			}
		}
	}
}
