//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a network and mount namespace of its own, which stands for a machine.
type machine struct {
	t     *testing.T
	name  string
	dir   string // what the machine's processes write
	pid   int
	procs []*exec.Cmd
}

// newMachine makes one; directories of a package's state are empty there.
func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	m := &machine{t: t, name: name, dir: t.TempDir()}
	keeper := exec.Command("unshare", "--net", "--mount", "sleep", "infinity")
	keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := keeper.Start(); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	m.pid = keeper.Process.Pid
	t.Cleanup(func() {
		for _, p := range m.procs {
			p.Process.Kill()
			p.Wait()
		}
		keeper.Process.Kill()
		keeper.Wait()
	})
	own, _ := os.Readlink("/proc/self/ns/net")
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if ns, err := os.Readlink(procFile(m.pid, "ns/net")); err == nil && ns != own {
			if b, _ := os.ReadFile(procFile(m.pid, "comm")); strings.TrimSpace(string(b)) == "sleep" {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("unshare made no namespace")
		}
	}
	m.must("sh", "-c", "mount -t tmpfs none /var/lib && mount -t tmpfs none /run && mkdir /var/lib/rhumb && ip link set lo up")
	return m
}

// command is a program inside.
func (m *machine) command(argv ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(m.pid), "-n", "-m", "--"}, argv...)...)
}

func (m *machine) must(argv ...string) string {
	m.t.Helper()
	out, err := m.command(argv...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v: %v\n%s", m.name, argv, err, out)
	}
	return string(out)
}

// start runs a daemon inside until the test ends.
func (m *machine) start(argv ...string) *exec.Cmd {
	m.t.Helper()
	cmd := m.command(argv...)
	log, err := os.Create(filepath.Join(m.dir, fmt.Sprintf("%s-%d.log", filepath.Base(argv[0]), len(m.procs))))
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		m.t.Fatal(err)
	}
	m.procs = append(m.procs, cmd)
	m.t.Cleanup(func() {
		if m.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			m.t.Logf("%s %v:\n%s", m.name, argv, b[max(0, len(b)-6000):])
		}
	})
	return cmd
}

// soon asks again until the answer is yes.
func soon(t *testing.T, what string, ok func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := ok()
		if err == nil {
			t.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
			return
		}
		if time.Since(began) > 2*patience {
			t.Fatalf("%s: not after %s: %v", what, 2*patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// samples copies etc/ and lets its fleet act.
func samples(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "etc"))); err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(dir, "fleet.yaml"), "mode: observe ", "mode: act ")
	return dir
}

func edit(t *testing.T, file, old, text string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q (%v)", file, old, err)
	}
	if err := os.WriteFile(file, bytes.Replace(b, []byte(old), []byte(text), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}

const stateFile = "/var/lib/rhumb/state.json"

// TestE2ERoleAuthDNSAlone runs the sample of a name server alone: no etcd, no BGP.
func TestE2ERoleAuthDNSAlone(t *testing.T) {
	t.Parallel()
	etc, m := samples(t), newMachine(t, "ns1")
	m.must("sh", "-c", "ip addr add 198.51.100.9/32 dev lo && ip -6 addr add 2001:db8:64:1::9/128 dev lo nodad")
	m.must(binary(t), "apply", filepath.Join(etc, "fleet.yaml"), "--store", stateFile)
	m.start(binary(t), "serve", "--config", filepath.Join(etc, "node-authdns.yaml"))
	for _, tt := range []struct{ server, args, want string }{
		{"198.51.100.9", "cdn.demo.test SOA +short", "hostmaster"},
		{"2001:db8:64:1::9", "cdn.demo.test SOA +tcp +short", "hostmaster"},
		{"198.51.100.9", "www.cdn.demo.test A +subnet=2.16.0.0/13 +short", "198.51.100."},
		{"198.51.100.9", "nobody.cdn.demo.test A", "NXDOMAIN"},
	} {
		soon(t, tt.args, func() error {
			out, err := m.command(append([]string{"dig", "@" + tt.server, "+tries=1", "+time=1"}, strings.Fields(tt.args)...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				return fmt.Errorf("%v %s", err, out)
			}
			return nil
		})
	}
	for _, args := range [][]string{{"status"}, {"explain", "www.cdn.demo.test", "--client", "2.16.0.1"}} {
		soon(t, "rhumb "+args[0], func() error { // the API may open later than the name server
			out, err := m.command(append([]string{binary(t)}, args...)...).CombinedOutput()
			if err != nil || args[0] == "explain" && !strings.Contains(string(out), "usable") {
				return fmt.Errorf("%v %s", err, out)
			}
			return nil
		})
	}
	// A second apply reaches the running server, and a wrong one does not.
	edit(t, filepath.Join(etc, "zones", "cdn.demo.test.zone"), "$TTL", "added IN A 198.51.100.999\n$TTL")
	r, err := m.command(binary(t), "apply", filepath.Join(etc, "fleet.yaml"), "--store", stateFile).CombinedOutput()
	if err == nil {
		t.Errorf("an address which is none was applied: %s", r)
	}
	edit(t, filepath.Join(etc, "zones", "cdn.demo.test.zone"), "added IN A 198.51.100.999\n$TTL", "$TTL")
	addLine(t, filepath.Join(etc, "zones", "cdn.demo.test.zone"), "added 60 IN TXT \"later\"")
	m.must(binary(t), "apply", filepath.Join(etc, "fleet.yaml"), "--store", stateFile)
	soon(t, "the added record", func() error {
		if out := m.must("dig", "@198.51.100.9", "added.cdn.demo.test", "TXT", "+short"); !strings.Contains(out, "later") {
			return errors.New(out)
		}
		return nil
	})
}

func addLine(t testing.TB, file, line string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(b, []byte("\n"+line+"\n")...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestE2ERoleBGPAlone runs the sample of routes alone beside a BIRD made of the
// sample for it: announced while the local service answers, at gshut while it does
// not, since nobody can say that another site would take the clients.
func TestE2ERoleBGPAlone(t *testing.T) {
	t.Parallel()
	etc, m, router := samples(t), newMachine(t, "ams1-a"), newMachine(t, "router")
	m.must("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", strconv.Itoa(router.pid))
	m.must("sh", "-c", "ip link set up0 up && ip addr add 198.51.100.9/25 dev up0 && ip -6 addr add 2001:db8:64:1::9/64 dev up0 nodad")
	router.must("sh", "-c", "ip link set up0 up && ip addr add 198.51.100.2/25 dev up0")
	conf := filepath.Join(router.dir, "bird.conf")
	text := "router id 198.51.100.2;\nprotocol device {}\ninclude \"" + filepath.Join(etc, "bird", "rhumb-peer.conf") + "\";\n" +
		"protocol bgp ams1 from rhumb { neighbor 198.51.100.9 as RHUMB_AS; }\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ctl := filepath.Join(router.dir, "bird.ctl")
	router.start("bird", "-f", "-c", conf, "-s", ctl)

	// The local service: a name server, here the other sample.
	edit(t, filepath.Join(etc, "node-authdns.yaml"), "127.0.0.1:8053", "127.0.0.1:8054")
	m.must(binary(t), "apply", filepath.Join(etc, "fleet.yaml"), "--store", stateFile)
	service := func() *exec.Cmd {
		return m.start(binary(t), "serve", "--config", filepath.Join(etc, "node-authdns.yaml"))
	}
	dns := service()
	m.start(binary(t), "serve", "--config", filepath.Join(etc, "node-bgp.yaml"))

	route := func() string {
		out, _ := router.command("birdc", "-s", ctl, "show", "route", "192.0.2.0/24", "all").CombinedOutput()
		return string(out) // where there is no route it says so and ends with 1
	}
	announced := func() error {
		if out := route(); !strings.Contains(out, "via 198.51.100.9") || strings.Contains(out, "(65535,0)") || strings.Contains(out, "64500 64500") {
			return errors.New(out)
		}
		return nil
	}
	soon(t, "announced", announced)
	if out := m.must("ip", "-o", "addr", "show", "dev", "lo"); !strings.Contains(out, "192.0.2.1/32") {
		t.Errorf("the address is not on lo:\n%s", out)
	}
	dns.Process.Kill()
	soon(t, "at gshut without the service", func() error {
		if out := route(); !strings.Contains(out, "via 198.51.100.9") || !strings.Contains(out, "(65535,0)") {
			return errors.New(out)
		}
		return nil
	})
	time.Sleep(5 * time.Second) // neither an anchor nor a site without Slot and witness goes further
	if out := route(); !strings.Contains(out, "(65535,0)") {
		t.Errorf("the route did not stay at gshut:\n%s", out)
	}
	service()
	soon(t, "announced again", announced)
}
