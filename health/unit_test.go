package health

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"rhumb/placement"
)

// envUnit makes the test binary a unit that is watched at a socket.
const envUnit = "RHUMB_HEALTH_TEST_UNIT"

// envHeld has it serve on a socket that the test holds, which came as descriptor 3.
const envHeld = "RHUMB_HEALTH_TEST_HELD"

// TestUnitProcess is the unit of the other tests, in a process of its own; by
// itself it does nothing.
func TestUnitProcess(t *testing.T) {
	path := os.Getenv(envUnit)
	if path == "" {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if os.Getenv(envHeld) != "" {
		l.Close()
		l, err = net.FileListener(os.NewFile(3, "held"))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf, syscall.SIGUSR1)
	go func() {
		<-deaf
		l.Close()
	}()
	fmt.Println(l.Addr())
	addr := netip.MustParseAddrPort(l.Addr().String())
	NewPresence(path, "rhumb-dns", func() []netip.AddrPort { return []netip.AddrPort{addr} }).Run(ctx)
}

// watched is a watch and what it says.
type watched struct {
	t      *testing.T
	path   string
	units  *Units
	events <-chan UnitEvent
	held   *os.File // the socket of the units; nil: each opens its own
}

func watchUnits(t *testing.T) *watched {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alive.sock")
	u := NewUnits(path, quiet())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &watched{t: t, path: path, units: u, events: u.Events()}
}

// start runs a unit and waits until it is seen.
func (w *watched) start() (*exec.Cmd, netip.AddrPort) {
	w.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestUnitProcess$", "-test.timeout", "10m")
	cmd.Env = append(os.Environ(), envUnit+"="+w.path)
	if w.held != nil {
		cmd.Env, cmd.ExtraFiles = append(cmd.Env, envHeld+"=1"), []*os.File{w.held}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(line[:len(line)-1])
	if e := w.await(UnitHere); e.PID != cmd.Process.Pid || e.Unit.Name != "rhumb-dns" || len(e.Unit.Listen) != 1 || e.Unit.Listen[0] != addr {
		w.t.Fatalf("%+v, want process %d on %s", e, cmd.Process.Pid, addr)
	}
	return cmd, addr
}

// await wants the next event to be of a state. That a unit stands still, and goes on, may
// be so on a busy machine at any time: it is passed over where nobody waits for it.
func (w *watched) await(s UnitState) UnitEvent {
	w.t.Helper()
	for stalled := false; ; {
		select {
		case e := <-w.events:
			switch {
			case e.State == s:
				return e
			case e.State == UnitStalled, stalled && e.State == UnitHere:
				stalled = e.State == UnitStalled
			default:
				w.t.Fatalf("%s (%s), want %s", e.State, e.Cause, s)
			}
		case <-time.After(time.Minute):
			w.t.Fatalf("no event, want %s", s)
		}
	}
}

// TestUnitExit: the kernel's word on an end needs no time, and no probe. The long form
// looks at the time; a stalled unit would be another event.
func TestUnitExit(t *testing.T) {
	w := watchUnits(t)
	for range 3 {
		cmd, _ := w.start()
		killed := time.Now()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		e := w.await(UnitExited)
		took := time.Since(killed)
		t.Logf("exit known %v after the signal: %s", took, e.Cause)
		if took > 250*time.Millisecond && os.Getenv("RHUMB_SOAK") != "" {
			t.Errorf("the exit was known after %v", took)
		}
	}
}

// TestUnitRestartsOnHeldSockets: whose sockets outlive it, and who is back in time, was not
// away; who does not come back is, and so is who ends again at once, or whose sockets go.
func TestUnitRestartsOnHeldSockets(t *testing.T) {
	w := watchUnits(t)
	hold := func() *net.TCPListener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			w.held, err = l.(*net.TCPListener).File()
		}
		if err != nil {
			t.Fatal(err)
		}
		return l.(*net.TCPListener)
	}
	l := hold()
	w.units.within, w.units.every = 30*time.Second, time.Hour // a test's process may take long to start
	first, _ := w.start()
	first.Process.Kill()
	second, _ := w.start() // it awaits that this one is here, and no other event before
	second.Process.Kill()
	if e := w.await(UnitExited); e.PID != second.Process.Pid {
		t.Errorf("%+v, want the end of process %d, the second within %v", e, second.Process.Pid, w.units.every)
	}

	w.forgive()
	third, _ := w.start()
	third.Process.Kill()
	w.held.Close()
	l.Close()
	if e := w.await(UnitExited); e.PID != third.Process.Pid {
		t.Errorf("%+v, want the end of process %d, whose socket is gone", e, third.Process.Pid)
	}

	w.forgive()
	w.units.within = 100 * time.Millisecond
	defer hold().Close()
	defer w.held.Close()
	fourth, _ := w.start()
	killed := time.Now()
	fourth.Process.Kill()
	if e := w.await(UnitExited); e.PID != fourth.Process.Pid || time.Since(killed) < w.units.within {
		t.Errorf("%+v after %v, want the end of process %d after %v", e, time.Since(killed), fourth.Process.Pid, w.units.within)
	}
}

// forgive forgets that a unit's end was waited with.
func (w *watched) forgive() {
	w.units.mu.Lock()
	defer w.units.mu.Unlock()
	clear(w.units.spared)
}

// TestExiting: a process that lives is not on its way out, and one that is gone is.
func TestExiting(t *testing.T) {
	w := watchUnits(t)
	cmd, _ := w.start()
	if exiting(cmd.Process.Pid) || exiting(os.Getpid()) {
		t.Error("a living process is on its way out")
	}
	cmd.Process.Kill()
	w.await(UnitExited)
	if !exiting(cmd.Process.Pid) {
		t.Error("one that was killed is not, before anybody waited for it")
	}
	cmd.Wait()
	if !exiting(cmd.Process.Pid) {
		t.Error("nor when it is gone")
	}
}

// TestUnitStops: one that stands still is not gone, and is heard when it goes on;
// one that says goodbye is no failure.
func TestUnitStops(t *testing.T) {
	w := watchUnits(t)
	cmd, _ := w.start()
	cmd.Process.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	e := w.await(UnitStalled)
	if took := time.Since(stopped); took < stalledAfter-2*tickEvery {
		t.Errorf("stalled after %v already", took)
	} else {
		t.Logf("stall known %v after the signal: %s", took, e.Cause)
	}
	cmd.Process.Signal(syscall.SIGCONT)
	w.await(UnitHere)
	cmd.Process.Signal(syscall.SIGTERM)
	w.await(UnitLeft)
}

// TestUnitDeaf: a process that lives and has lost its listener.
func TestUnitDeaf(t *testing.T) {
	w := watchUnits(t)
	cmd, addr := w.start()
	// It must have been seen to be missed: at the next look after it was here. On a busy
	// machine that one may be late, and no event tells of it.
	time.Sleep(3 * listenEvery)
	here, err := listening()
	if err != nil || !here.has(addr) {
		t.Fatalf("%s is not among %v (%v)", addr, here, err)
	}
	cmd.Process.Signal(syscall.SIGUSR1)
	if e := w.await(UnitDeaf); e.Cause != "rhumb-dns: nobody listens on "+addr.String()+" any more" {
		t.Error(e.Cause)
	}
}

// TestListening: TCP and UDP, both families, and sockets of all addresses.
func TestListening(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		for _, host := range []string{"loopback", "any"} {
			t.Run(network+" "+host, func(t *testing.T) {
				bind := map[string]string{"tcp4 loopback": "127.0.0.1:0", "tcp6 loopback": "[::1]:0", "udp4 loopback": "127.0.0.1:0", "udp6 loopback": "[::1]:0",
					"tcp4 any": "0.0.0.0:0", "tcp6 any": "[::]:0", "udp4 any": "0.0.0.0:0", "udp6 any": "[::]:0"}[network+" "+host]
				var addr net.Addr
				var end func() error
				if network[:3] == "tcp" {
					l, err := net.Listen(network, bind)
					if err != nil {
						t.Fatal(err)
					}
					addr, end = l.Addr(), l.Close
				} else {
					c, err := net.ListenPacket(network, bind)
					if err != nil {
						t.Fatal(err)
					}
					addr, end = c.LocalAddr(), c.Close
				}
				port := netip.MustParseAddrPort(addr.String()).Port()
				want := netip.AddrPortFrom(netip.MustParseAddr(map[byte]string{'4': "127.0.0.1", '6': "::1"}[network[3]]), port)
				if here, err := listening(); err != nil || !here.has(want) {
					t.Errorf("%s is not there: %v", want, err)
				}
				end()
				if here, err := listening(); err != nil || here.has(want) {
					t.Errorf("%s is still there: %v", want, err)
				}
			})
		}
	}
}

func FuzzParseDiag(f *testing.F) {
	f.Add(make([]byte, 16))
	m := make([]byte, 16+diagMessage)
	m[0], m[4], m[16] = 16+diagMessage, 20, 2
	f.Add(m)
	f.Add(append(m, m...))
	f.Add([]byte{20, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		out := make(sockets)
		if _, err := parseDiag(data, out); err != nil && len(out) > len(data)/diagMessage {
			t.Errorf("%d sockets out of %d bytes", len(out), len(data))
		}
	})
}

// TestProcessAndProbes: the end of a process is a down at once, and a second class
// of evidence when the probes have found out as well; a good look contradicts it.
func TestProcessAndProbes(t *testing.T) {
	c := newCluster(Probe{Object: placement.ClusterID{Site: "ams1", Name: "dns"}, Targets: []Target{
		{Address: addrOf(0), Check: placement.Check{Rise: 2, Fall: 2, Fault: placement.SharedFault}}, {Address: addrOf(1), Check: placement.Check{Rise: 2, Fall: 2, Fault: placement.SharedFault}}}})
	now := time.Unix(0, 0)
	feed := func(i int, ok bool) {
		now = now.Add(time.Second)
		r := Result{State: placement.Down, Cause: "timeout", At: now}
		if ok {
			r.State = placement.Up
		}
		c.feed(addrOf(i), "", r)
	}
	want := func(what string, s placement.State, ended bool, second placement.Evidence) {
		t.Helper()
		if have, cause := c.state(); have != s || c.ended() != ended || c.second(now) != second {
			t.Errorf("%s: %v (%s), ended %v, second %q; want %v, %v, %q", what, have, cause, c.ended(), c.second(now), s, ended, second)
		}
	}
	both := []netip.AddrPort{addrOf(0), addrOf(1)}
	feed(0, true)
	feed(1, true)
	if c.process([]netip.AddrPort{addrOf(7)}, true, "another", now) {
		t.Error("another unit's end is taken for ours")
	}
	want("calm", placement.Up, false, "")
	if !c.process(both, true, "rhumb-dns: process 7 has exited", now) || c.process(both, true, "again", now) {
		t.Error("an end is news, and once")
	}
	want("exited", placement.Down, true, "")
	feed(0, false)
	feed(0, false)
	feed(1, false)
	want("probes miss one", placement.Down, true, "")
	feed(1, false)
	want("probes miss both", placement.Down, true, placement.Process)
	c.process(both, false, "", now)
	want("started", placement.Down, false, "")
	for range 30 {
		feed(0, true)
		feed(1, true)
	}
	want("back", placement.Up, false, "")
	c.process(both, true, "rhumb-dns: process 8 has exited", now)
	feed(0, true)
	want("a good look contradicts", placement.Down, false, "")
}
