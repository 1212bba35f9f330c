package house

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	metricWord = regexp.MustCompile(`rhumb_[a-z0-9_]+`)
	alertName  = regexp.MustCompile(`(?m)^\s*- alert: (\S+)$`)
)

// baseMetric takes off what a histogram adds to its name.
func baseMetric(name string, code map[string]string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && code[base] != "" {
			return base
		}
	}
	return name
}

// TestAlertsAreTrue: a rule that asks for a metric which nobody makes never
// fires. Every alert has a metric of the code, a runbook and a test of its own.
func TestAlertsAreTrue(t *testing.T) {
	rules, tests, code := read(t, "etc/prometheus/alerts.yaml"), read(t, "etc/prometheus/alerts_test.yaml"), codeMetrics(t)
	for file, text := range map[string]string{"alerts.yaml": rules, "alerts_test.yaml": tests} {
		for _, m := range metricWord.FindAllString(text, -1) {
			if code[baseMetric(m, code)] == "" {
				t.Errorf("etc/prometheus/%s asks for %s, which is not in the code", file, m)
			}
		}
	}
	names := alertName.FindAllStringSubmatch(rules, -1)
	if len(names) < 20 {
		t.Errorf("etc/prometheus/alerts.yaml has %d alerts, want more than 20", len(names))
	}
	runbooks := read(t, "docs/reference/alerts.md")
	for _, m := range names {
		if !strings.Contains(runbooks, "\n## "+m[1]+"\n") {
			t.Errorf("docs/reference/alerts.md has no runbook for %s", m[1])
		}
		if !strings.Contains(rules, "runbook: docs/reference/alerts.md#"+strings.ToLower(m[1])+"\n") {
			t.Errorf("%s names no runbook", m[1])
		}
		if !strings.Contains(tests, "  - name: "+m[1]+"\n") || !strings.Contains(tests, "alertname: "+m[1]+"}") {
			t.Errorf("alerts_test.yaml does not test that %s fires, and that it is quiet", m[1])
		}
	}
}

// unitFile is a systemd unit: sections of keys, each with its values in order.
type unitFile map[string]map[string][]string

func parseUnit(text string) (unitFile, error) {
	out, section := make(unitFile), ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
			out[section] = make(map[string][]string)
		case !ok || section == "" || key != strings.TrimSpace(key):
			return nil, fmt.Errorf("line %d: %q is neither a section nor KEY=VALUE", i+1, line)
		default:
			out[section][key] = append(out[section][key], value)
		}
	}
	return out, nil
}

// TestUnitsStart: what the units say is what the binary understands: the roles
// of each, flags that exist, and nothing that serve doesn't do.
func TestUnitsStart(t *testing.T) {
	roles := map[string]string{"rhumb-bgp": "bgp,health", "rhumb-dns": "authdns", "rhumb-edge": "edge", "rhumb-director": "placement"}
	files, err := filepath.Glob(filepath.Join(root(t), "etc/systemd/*"))
	if err != nil || len(files) != len(roles)+1 {
		t.Fatalf("etc/systemd has %v, want %d units and the watchdog (%v)", files, len(roles), err)
	}
	serve := read(t, "cmd/rhumb/serve.go")
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".service")
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		u, err := parseUnit(string(b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name == "rhumb-watchdog" {
			checkCommand(t, name, "watchdog", read(t, "cmd/rhumb/cmd_watchdog.go"), u["Service"])
			continue
		}
		checkService(t, name, roles[name], serve, u["Service"])
	}
}

func checkService(t *testing.T, name, roles, serve string, s map[string][]string) {
	want := []string{"/usr/bin/rhumb serve --config /etc/rhumb/node.yaml --roles " + roles}
	if !slices.Equal(s["ExecStart"], want) {
		t.Errorf("%s: ExecStart=%v, want %v", name, s["ExecStart"], want)
	}
	for _, flag := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(strings.Join(s["ExecStart"], " "), -1) {
		if !strings.Contains(serve, `, "`+flag[1]+`", `) {
			t.Errorf("%s: serve has no flag --%s", name, flag[1])
		}
	}
	if notify := strings.Contains(serve, "SdNotifyReady"); notify != slices.Equal(s["Type"], []string{"notify"}) {
		t.Errorf("%s: Type=%v, but serve tells systemd that it is ready: %v", name, s["Type"], notify)
	}
	if reload := s["ExecReload"]; len(reload) > 0 {
		if want := []string{"/usr/bin/rhumb upgrade dns --config /etc/rhumb/node.yaml"}; !slices.Equal(reload, want) || roles != "authdns" {
			t.Errorf("%s: ExecReload=%v; only rhumb-dns can be reloaded, by %v", name, reload, want)
		}
		if source := read(t, "cmd/rhumb/cmd_upgrade.go"); !strings.Contains(source, `"upgrade dns"`) || !strings.Contains(source, `, "config", `) {
			t.Errorf("%s: there is no command upgrade dns with --config", name)
		}
	}
	// Each of these would kill or hang a unit that doesn't answer it.
	for key, word := range map[string]string{"WatchdogSec": "SdNotifyWatchdog"} {
		if len(s[key]) > 0 && !strings.Contains(serve, word) {
			t.Errorf("%s: %s is set, but serve doesn't send %s", name, key, word)
		}
	}
	checkConfined(t, name, s)
}

// checkCommand checks a unit which runs a command without roles, and says
// nothing to systemd: with Type=notify it would never be started.
func checkCommand(t *testing.T, name, command, source string, s map[string][]string) {
	if want := []string{"/usr/bin/rhumb " + command + " --config /etc/rhumb/node.yaml"}; !slices.Equal(s["ExecStart"], want) {
		t.Errorf("%s: ExecStart=%v, want %v", name, s["ExecStart"], want)
	}
	if !strings.Contains(source, `"`+command+`"`) || !strings.Contains(source, `, "config", `) {
		t.Errorf("%s: there is no command %s with --config", name, command)
	}
	if !slices.Equal(s["Type"], []string{"exec"}) || len(s["WatchdogSec"])+len(s["ExecReload"]) > 0 {
		t.Errorf("%s: Type=%v, WatchdogSec=%v, ExecReload=%v: the command tells systemd nothing", name, s["Type"], s["WatchdogSec"], s["ExecReload"])
	}
	checkConfined(t, name, s)
}

// checkConfined holds what every unit has in common.
func checkConfined(t *testing.T, name string, s map[string][]string) {
	for key, value := range map[string]string{"NoNewPrivileges": "yes", "ProtectSystem": "strict", "MemoryDenyWriteExecute": "yes",
		"StateDirectory": "rhumb", "RuntimeDirectory": "rhumb", "RuntimeDirectoryPreserve": "yes", "User": "rhumb", "Restart": "always"} {
		if !slices.Equal(s[key], []string{value}) {
			t.Errorf("%s: %s=%v, want %s", name, key, s[key], value)
		}
	}
	if !slices.Equal(s["AmbientCapabilities"], s["CapabilityBoundingSet"]) || len(s["CapabilityBoundingSet"]) != 1 {
		t.Errorf("%s: it gets %v and may have %v; want the same, once", name, s["AmbientCapabilities"], s["CapabilityBoundingSet"])
	}
}
