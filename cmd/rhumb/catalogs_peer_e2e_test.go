//go:build e2e

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// knotCatalogs makes Knot follow catz1.test and catz2.test, which are ours, and make
// catz.knot.test of the zones that are appended. In hand.knot.test and next.knot.test
// stands what the test writes there. Zones in group far may be copied by nobody, so that
// it shows who is in it.
const knotCatalogs = `server:
    listen: 127.0.0.2@53
    rundir: "%[1]s"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    version: ""
database:
    storage: "%[1]s"
log:
  - target: stderr
    any: info
key:
  - id: one.test
    algorithm: hmac-sha256
    secret: %[2]s
remote:
  - id: rhumb
    address: 127.0.0.1@53
    key: one.test
acl:
  - id: told
    key: one.test
    action: [notify, transfer]
  - id: look
    address: 127.0.0.0/8
    action: transfer
template:
  - id: default
    storage: "%[1]s"
    zonefile-sync: -1
    notify: rhumb
    acl: told
  - id: member
    storage: "%[1]s"
    zonefile-sync: -1
    journal-content: all
    master: rhumb
    acl: [told, look]
  - id: far
    storage: "%[1]s"
    zonefile-sync: -1
    journal-content: all
    master: rhumb
    acl: told
zone:
  - domain: catz1.test
    template: member
    catalog-role: interpret
    catalog-template: [member, far]
  - domain: catz2.test
    template: member
    catalog-role: interpret
    catalog-template: [member, far]
  - domain: catz.knot.test
    catalog-role: generate
  - domain: hand.knot.test
    journal-content: none
  - domain: next.knot.test
    journal-content: none
  - domain: x.knot.test
`

const bindCatalogs = `options { directory "%[1]s"; listen-on port 53 { 127.0.0.4; }; listen-on-v6 { none; };
  pid-file "%[1]s/pid"; session-keyfile "%[1]s/session"; recursion no; notify no; dnssec-validation no; allow-transfer { 127.0.0.0/8; };
  serial-query-rate 1000; min-refresh-time 2; min-retry-time 2;
  catalog-zones {
    zone "catz1.test" default-primaries { 127.0.0.1 key one.test; } in-memory yes min-update-interval 1;
    zone "catz2.test" default-primaries { 127.0.0.1 key one.test; } in-memory yes min-update-interval 1;
  };
};
controls { };
key one.test { algorithm hmac-sha256; secret "%[2]s"; };
server 127.0.0.1 { keys one.test; };
zone "catz1.test" { type secondary; file "catz1.zone"; primaries { 127.0.0.1; }; };
zone "catz2.test" { type secondary; file "catz2.zone"; primaries { 127.0.0.1; }; };
`

// spoken collects what somebody says, from several goroutines.
type spoken struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *spoken) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

// tail is the end of it, without what we were answered.
func (s *spoken) tail(lines int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(strings.Split(strings.TrimSpace(s.buf.String()), "\n"), func(l string) bool { return strings.Contains(l, "] control, ") })
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// count is how often something was said.
func (s *spoken) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.buf.String(), what)
}

// catalogPeer is a foreign name server.
type catalogPeer struct {
	name, addr, dir string
	log             *spoken
	kill            func()
}

// startCatalogPeer runs one until the test ends, or it is killed.
func startCatalogPeer(t *testing.T, name, addr, conf string, prepare func(dir string), command ...string) *catalogPeer {
	t.Helper()
	p := &catalogPeer{name: name, addr: addr, dir: t.TempDir(), log: &spoken{}}
	p.configure(t, conf)
	if prepare != nil {
		prepare(p.dir)
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatalf("needs %s (Debian: knot bind9): %v", command[0], err)
	}
	cmd := exec.Command(command[0], append(command[1:], filepath.Join(p.dir, "conf"))...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.kill = sync.OnceFunc(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.log.tail(40))
		}
	})
	return p
}

func (p *catalogPeer) configure(t *testing.T, conf string) {
	t.Helper()
	text := fmt.Appendf(nil, conf, p.dir, catalogSecret)
	if err := os.WriteFile(filepath.Join(p.dir, "conf"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// control says something to Knot.
func (p *catalogPeer) control(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command("knotc", append([]string{"-s", filepath.Join(p.dir, "knot.sock")}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("knotc %v: %v\n%s", words, err, out)
	}
	return string(out)
}

// serialAt is the serial of a zone as somebody answers it, and the RCODE.
func serialAt(addr, name string) (uint32, string) {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeSOA)
	r, _, err := (&dns.Client{Timeout: time.Second}).Exchange(m, addr)
	if err != nil {
		return 0, err.Error()
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa.Serial, dns.RcodeToString[r.Rcode]
		}
	}
	return 0, dns.RcodeToString[r.Rcode]
}
