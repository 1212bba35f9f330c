//go:build e2e

package netlab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envHelper makes the test binary play a lab instead of running tests: its value
// is the path of the control socket.
const envHelper = "RHUMB_NETLAB_TEST_LAB"

// playLab is a lab in small: outside it opens a listener and re-executes itself,
// inside it builds two nodes, serves the listener and the control socket.
func playLab(socket string) error {
	if !Inside() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		fmt.Println("listening", l.Addr())
		l.Close()
		return Reexec{Args: os.Args[1:], Files: []*os.File{f}}.Run(context.Background())
	}
	files, err := Enter()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	n, err := Build(context.Background(), pairTopology(Impairment{Delay: time.Millisecond}), log)
	if err != nil {
		return err
	}
	control, err := ListenControl(socket, n.Handlers(), log)
	if err != nil {
		return err
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "from inside")
			c.Close()
		}
	}()
	fmt.Println("ready")
	return control.Run(context.Background())
}

// lab is a running playLab.
type lab struct {
	cmd    *exec.Cmd
	socket string
	listen string
	ended  chan error
}

func startLab(t *testing.T, uid int) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "netlab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	l := &lab{socket: filepath.Join(dir, "control.sock"), ended: make(chan error, 1)}
	l.cmd = exec.Command("/proc/self/exe")
	l.cmd.Env = append(os.Environ(), envHelper+"="+l.socket)
	l.cmd.Dir, l.cmd.Stderr = "/", os.Stderr
	if uid != os.Getuid() {
		l.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		l.listen = strings.TrimPrefix(lines.Text(), "listening ")
	}
	if lines.Text() != "ready" {
		t.Fatalf("the lab did not start: %v", l.cmd.Wait())
	}
	go func() { l.ended <- l.cmd.Wait() }()
	return l
}

// exec runs a program in the lab as another process of the machine would.
func (l *lab) exec(t *testing.T, stdin string, argv ...string) (code int, stdout string) {
	t.Helper()
	in, inW, _ := os.Pipe()
	outR, out, _ := os.Pipe()
	defer outR.Close()
	inW.WriteString(stdin)
	inW.Close()
	req := Request{Verb: "exec", Node: "left", Argv: argv, Env: l.cmd.Env, Dir: "/", Files: []*os.File{in, out, out}}
	code, err := Ask(t.Context(), l.socket, req, func(json.RawMessage) error { return nil }, nil)
	if err != nil {
		t.Errorf("%s: %v", argv, err)
	}
	in.Close()
	out.Close()
	text, _ := io.ReadAll(outR)
	return code, string(text)
}

// users are who may run a lab here: whoever runs the tests and, if that is a
// real root, nobody too.
func users(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{"as the caller": os.Getuid()}
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(ids)); len(f) == 3 && f[2] == "4294967295" {
		all["as nobody"] = 65534
	}
	return all
}

func TestLabFromOutside(t *testing.T) {
	for name, uid := range users(t) {
		t.Run(name, func(t *testing.T) {
			l := startLab(t, uid)
			c, err := net.Dial("tcp", l.listen)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(c); string(got) != "from inside\n" {
				t.Errorf("the passed listener said %q", got)
			}
			c.Close()
			if code, out := l.exec(t, "over ", "sh", "-c", "cat; ls /proc/sys/net/ipv4/conf; exit 3"); code != 3 || !strings.HasPrefix(out, "over ") || !strings.Contains(out, "right") {
				t.Errorf("exec: code %d, output %q", code, out)
			}
			if code, _ := l.exec(t, "", "sh", "-c", "kill -TERM $$"); code != 128+15 {
				t.Errorf("a program that SIGTERM ended has code %d, want 143", code)
			}
			if code, out := l.exec(t, "", "cat", "/proc/sys/net/ipv4/ping_group_range"); code != 0 || !strings.HasPrefix(out, "0\t") {
				t.Errorf("ping_group_range: code %d, %q", code, out)
			}
		})
	}
}

// A program inside hears the client's Ctrl-C, and ends when the client is gone.
func TestExecFollowsItsClient(t *testing.T) {
	l := startLab(t, os.Getuid())
	begin := func(ctx context.Context, signals chan os.Signal) (pid string, ended chan int) {
		outR, out, _ := os.Pipe()
		ended = make(chan int, 1)
		go func() {
			null, _ := os.Open(os.DevNull)
			defer null.Close()
			code, _ := ExecIn(ctx, l.socket, "left", []string{"sh", "-c", "echo $$; exec sleep 1000"}, [3]*os.File{null, out, out}, signals)
			out.Close()
			ended <- code
		}()
		line, err := bufio.NewReader(outR).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line), ended
	}
	signals := make(chan os.Signal, 1)
	_, ended := begin(t.Context(), signals)
	signals <- unix.SIGINT
	if code := <-ended; code != 128+2 {
		t.Errorf("after Ctrl-C code %d, want 130", code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	pid, ended := begin(ctx, nil)
	cancel()
	<-ended
	if code, out := l.exec(t, "", "timeout", "20", "sh", "-c", "while kill -0 "+pid+" 2>/dev/null; do sleep 0.01; done"); code != 0 {
		t.Errorf("the program lives on without its client: code %d, %s", code, out)
	}
}

// An interactive shell has a terminal of its own: its size is the user's, Ctrl-C
// reaches the program in the foreground, and the user's terminal is as before.
func TestShellFromOutside(t *testing.T) {
	for name, uid := range users(t) {
		t.Run(name, func(t *testing.T) {
			l := startLab(t, uid)
			user := relay{}
			var err error
			if user.master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
			if user.before, err = unix.IoctlGetTermios(user.master, unix.TCGETS); err != nil {
				t.Fatal(err)
			}
			user.user = user.master
			terminal, err := user.openSlave()
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, user.before); err != nil {
				t.Fatal(err)
			}
			if err := unix.IoctlSetWinsize(user.master, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
				t.Fatal(err)
			}
			type end struct {
				code int
				err  error
			}
			ended := make(chan end, 1)
			go func() {
				code, err := ShellIn(t.Context(), l.socket, "left", []string{"sh", "-c", `stty size; trap "echo got it; exit 5" INT; echo ready; while :; do sleep 1; done`}, terminal, nil)
				ended <- end{code, err}
			}()
			screen := readUntil(t, user.master, "ready")
			if !strings.Contains(screen, "33 77") {
				t.Errorf("screen shows %q", screen)
			}
			unix.Write(user.master, []byte{3}) // Ctrl-C
			readUntil(t, user.master, "got it")
			if e := <-ended; e.code != 5 || e.err != nil {
				t.Errorf("shell ended with %d, %v", e.code, e.err)
			}
			after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
			if err != nil || after.Lflag != user.before.Lflag {
				t.Errorf("terminal left with %+v, %v", after, err)
			}
			terminal.Close()
			unix.Close(user.master)
		})
	}
}

func readUntil(t *testing.T, fd int, want string) (all string) {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for b := make([]byte, 256); !strings.Contains(all, want); {
		if n, err := unix.Poll(poll, int(patience.Milliseconds())); n != 1 {
			t.Fatalf("screen shows %q, then nothing: %v", all, err)
		}
		n, err := unix.Read(fd, b)
		if err != nil {
			t.Fatalf("screen shows %q, then %v", all, err)
		}
		all += string(b[:n])
	}
	return all
}

// However the lab ends, nothing of it stays: its processes are found by a mark
// in their environment, which also the orphans inherit.
func TestNothingStaysBehind(t *testing.T) {
	for name, uid := range users(t) {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			t.Run(name+", "+unix.SignalName(sig), func(t *testing.T) {
				l := startLab(t, uid)
				l.exec(t, "", "sh", "-c", `setsid sleep 1000 >/dev/null 2>&1 </dev/null &
					until [ "$(cat /proc/$!/comm)" = sleep ]; do :; done`)
				before := marked(t, l.socket)
				if len(before) < 4 {
					t.Fatalf("%d processes of the lab are up, want outer, init, worker and the orphan", len(before))
				}
				watch := pidfds(t, before)
				if err := l.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if err := <-l.ended; err == nil {
					t.Error("the lab ended well")
				}
				awaitEnd(t, watch)
				if after := marked(t, l.socket); len(after) != 0 {
					t.Errorf("processes %v are left", after)
				}
			})
		}
	}
}

// marked lists the processes whose environment names the socket.
func marked(t *testing.T, socket string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && strings.Contains(string(env), envHelper+"="+socket) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func pidfds(t *testing.T, pids []int) (fds []unix.PollFd) {
	t.Helper()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return fds
}

// awaitEnd waits until every process has ended.
func awaitEnd(t *testing.T, watch []unix.PollFd) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for i := range watch {
		for {
			n, err := unix.Poll(watch[i:i+1], int(time.Until(deadline).Milliseconds()))
			if n == 1 {
				break
			}
			if !errors.Is(err, unix.EINTR) {
				t.Fatalf("a process of the lab lives on: %v", err)
			}
		}
	}
}

func TestAvailable(t *testing.T) {
	if err := Available(); err != nil {
		t.Error(err)
	}
}
