package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/edge"
	"rhumb/internal/config"
)

// TestReadTokens: secrets that everybody can read are none, and no error tells one.
func TestReadTokens(t *testing.T) {
	line := strings.Repeat("5a", 32)
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       int
		err        string
	}{
		{"good", line + "\n", 0o640, 1, ""},
		{"two", line + "\n" + line, 0o600, 2, ""},
		{"readable", line, 0o644, 0, "everybody can read it"},
		{"short", line[2:], 0o600, 0, "line 1"},
	} {
		file := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readTokens(file)
		if len(got) != c.want || (err != nil) != (c.err != "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "5a5a")) {
			t.Errorf("%s: %d secrets, %v, want %d and %q", c.name, len(got), err, c.want, c.err)
		}
	}
	if got, err := readTokens(""); got != nil || err != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
	if _, err := readTokens(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}

// TestEventsReachTheAgent: what the fleet file says of event streams is what the agent
// is given.
func TestEventsReachTheAgent(t *testing.T) {
	inv := edgeInventory()
	inv.Services[0].Edge.Events, inv.Services[0].Edge.EventsStrict = "/live/", true
	s := contentServices(inv, &unit{cfg: &config.Node{}})
	if want := (edge.Events{Path: "/live/", Strict: true}); len(s) != 1 || s[0].Events != want {
		t.Errorf("services %+v, want one with %+v", s, want)
	}
}

// TestFollowTokens: the agent is given what is put into the file, and keeps the last good
// secrets when that is wrong.
func TestFollowTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := strings.Repeat("5a", 32) + "\n"
	put(line)
	held, err := readTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		agent, err := edge.New(edge.Config{Site: "ams1", Control: netip.MustParseAddrPort("127.0.0.2:1"), TLS: &tls.Config{Certificates: make([]tls.Certificate, 1), RootCAs: x509.NewCertPool(), ClientCAs: x509.NewCertPool()}, Tokens: held})
		if err != nil {
			t.Fatal(err)
		}
		cfg := &config.Node{}
		cfg.Edge.Tokens = file
		e := &edgeRole{unit: &unit{cfg: cfg, log: slog.New(slog.NewTextHandler(&log, nil))}, agent: agent, tokens: held}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.followTokens(ctx) }()
		var said []string
		for _, text := range []string{line, line + line, "nonsense", line} {
			put(text)
			time.Sleep(2 * secretPace)
			synctest.Wait()
			said = append(said, fmt.Sprintf("%d taken, %d wrong", strings.Count(log.String(), "token secrets taken in"), strings.Count(log.String(), "the last good ones stay")))
		}
		cancel()
		<-done
		want := []string{"0 taken, 0 wrong", "1 taken, 0 wrong", "1 taken, 1 wrong", "2 taken, 1 wrong"}
		if !slices.Equal(said, want) || strings.Contains(log.String(), "5a5a") {
			t.Errorf("after each change %q, want %q; log:\n%s", said, want, log.String())
		}
	})
}
