package netlab

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// serveControl runs a Control for the length of the test.
func serveControl(t *testing.T, handlers map[string]Handler) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	c, err := ListenControl(path, handlers, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestControlCarriesFilesDataAndCode(t *testing.T) {
	path := serveControl(t, map[string]Handler{"copy": func(_ context.Context, c *Call) (int, error) {
		if _, err := io.Copy(c.Files[1], c.Files[0]); err != nil {
			return 1, err
		}
		for _, word := range c.Argv {
			if err := c.Reply(word + " in " + c.Node); err != nil {
				return 1, err
			}
		}
		return 42, errors.New("as agreed")
	}})
	in, inW, _ := os.Pipe()
	outR, out, _ := os.Pipe()
	inW.WriteString("through the pipe")
	inW.Close()

	var heard []string
	code, err := Ask(t.Context(), path, Request{Verb: "copy", Node: "ams1", Argv: []string{"one", "two"}, Files: []*os.File{in, out}},
		func(data json.RawMessage) error {
			heard = append(heard, string(data))
			return nil
		}, nil)
	out.Close()
	if code != 42 || err == nil || err.Error() != "as agreed" {
		t.Errorf("code %d, error %v", code, err)
	}
	if got := strings.Join(heard, " "); got != `"one in ams1" "two in ams1"` {
		t.Errorf("heard %s", got)
	}
	if got, _ := io.ReadAll(outR); string(got) != "through the pipe" {
		t.Errorf("pipe carried %q", got)
	}
}

func TestControlForwardsSignals(t *testing.T) {
	path := serveControl(t, map[string]Handler{"wait": func(ctx context.Context, c *Call) (int, error) {
		return int(<-c.Signals), nil
	}})
	signals := make(chan os.Signal, 1)
	signals <- unix.SIGWINCH
	if code, err := Ask(t.Context(), path, Request{Verb: "wait"}, nil, signals); code != int(unix.SIGWINCH) || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
}

func TestControlClientThatLeavesEndsTheCall(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	path := serveControl(t, map[string]Handler{"wait": func(ctx context.Context, c *Call) (int, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return 0, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if _, err := Ask(ctx, path, Request{Verb: "wait"}, nil, nil); err == nil {
		t.Error("the abandoned call ended well")
	}
	<-ended
}

func TestControlRefuses(t *testing.T) {
	path := serveControl(t, nil)
	if code, err := Ask(t.Context(), path, Request{Verb: "dance"}, nil, nil); code != 2 || err == nil || !strings.Contains(err.Error(), `no verb "dance"`) {
		t.Errorf("code %d, %v", code, err)
	}
	if _, err := Ask(t.Context(), path, Request{Verb: strings.Repeat("x", maxMessage)}, nil, nil); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("huge request: %v", err)
	}
	if _, err := ListenControl(path, nil, nil); err == nil || !strings.Contains(err.Error(), "another lab") {
		t.Errorf("second lab on one socket: %v", err)
	}
	if _, err := Ask(t.Context(), path+"x", Request{}, nil, nil); err == nil || !strings.Contains(err.Error(), "no lab is running") {
		t.Errorf("no socket: %v", err)
	}
}

func TestListenControlReplacesLeftover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd) // the file stays, as after a kill
	c, err := ListenControl(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, %v", st.Mode(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Error(err)
	}
}
