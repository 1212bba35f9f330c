package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func openAs(t *testing.T, endpoints []string, c *ClientTLS) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Etcd: &Etcd{Endpoints: endpoints, Group: c}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// answers tells whether a store answers; one that must not is given little time. An
// election in between is no answer, and none is not meant.
func answers(s *Store, want bool) error {
	limit := time.Minute
	if !want {
		limit = 400 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := s.Heartbeat(ctx)
	for err != nil && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		err = s.Heartbeat(ctx)
	}
	if (err == nil) != want {
		return fmt.Errorf("answers: %v (%v), want %v", err == nil, err, want)
	}
	return nil
}

// eventually waits for something that comes by itself. Logs are told where it does not.
func eventually(t *testing.T, what string, ok func() error, logs ...*lockedBuilder) {
	t.Helper()
	const limit = time.Minute // a machine that is busy with everything else at once
	end := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			for _, l := range logs {
				text := l.String()
				t.Logf("the end of the log:\n%s", text[max(0, len(text)-8<<10):])
			}
			t.Fatalf("%s: want it within %v, seen last: %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// saysNothing tells whether a port answers what is said in clear by hanging up alone.
func saysNothing(t *testing.T, url, hello string) {
	t.Helper()
	c, err := net.Dial("tcp", hostOf(url))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, hello)
	b, err := io.ReadAll(c)
	var timeout net.Error
	if len(b) > 0 || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s answers in clear: %q (%v), want nothing and an end", url, b, err)
	}
}

// A new cluster takes TLS alone from its first byte, and of its own group alone.
func TestMembersBeginWithTLS(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	members, dir := membersFor(t, 1), filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // no socket has such a path
	var log lockedBuilder
	e, err := StartEmbedded(ctxFor(t), EmbeddedConfig{Name: "m1", Dir: dir, Members: members, TLS: a.member(TLSAuto),
		Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	saysNothing(t, members[0].PeerURL, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
	saysNothing(t, members[0].ClientURLs[0], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	nobody := a.client(t, TLSRequire, "")
	nobody.Config.Certificates = nil
	impostor := a.client(t, TLSRequire, "")
	impostor.Config.Certificates = stranger.client(t, TLSRequire, "").Config.Certificates
	for _, tt := range []struct {
		name string
		c    *ClientTLS
		want bool
	}{
		{"a node of the group", a.client(t, TLSAuto, ""), true},
		{"in clear", nil, false},
		{"no certificate", nobody, false},
		{"a certificate of another group", impostor, false},
		{"a member of another group, to its own", stranger.client(t, TLSAuto, ""), false},
	} {
		if err := answers(openAs(t, e.Endpoints(), tt.c), tt.want); err != nil {
			t.Errorf("%s\n%s: %v", log.String(), tt.name, err)
		}
	}
	eventually(t, "link", func() error {
		if l := e.Link(); l != (MemberLink{Members: 1, Reaches: true}) {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	if n := e.gate.fronts[1].turnedAway(reasonCertificate); n == 0 {
		t.Error("refused certificates are not counted")
	}
}

// Who is revoked loses the connection that stands.
func TestRevokedIsEnded(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	e, err := StartEmbedded(ctxFor(t), EmbeddedConfig{Name: "m1", Dir: t.TempDir(), Members: membersFor(t, 1), TLS: a.member(TLSRequire)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s := openAs(t, e.Endpoints(), a.client(t, TLSRequire, ""))
	if err := answers(s, true); err != nil {
		t.Fatal(err)
	}
	a.revoked.Store(a.serial)
	e.gate.fronts[1].sweep()
	if err := answers(s, false); err != nil {
		t.Error(err)
	}
	a.revoked.Store(0)
	if err := answers(s, true); err != nil {
		t.Error(err)
	}
}

func TestNextMove(t *testing.T) {
	p := func(name, url string, self bool) peer { return peer{name: name, urls: []string{url}, self: self} }
	for _, tt := range []struct {
		name string
		all  []peer
		tls  bool
		want string
	}{
		{"all in clear", []peer{p("a", "http://x", false), p("b", "http://x", false)}, true, "a"},
		{"the one who moves goes last", []peer{p("a", "http://x", true), p("b", "http://x", false)}, true, "b"},
		{"but goes", []peer{p("a", "http://x", true), p("b", "https://x", false)}, true, "a"},
		{"done", []peer{p("a", "https://x", true), p("b", "https://x", false)}, true, ""},
		{"back", []peer{p("a", "http://x", false), p("b", "https://x", false)}, false, "b"},
		{"nobody", nil, true, ""},
	} {
		got := ""
		if m := nextMove(tt.all, tt.tls); m != nil {
			got = m.name
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := flipped([]string{"http://192.0.2.1:2380", "https://[2001:db8::1]:2380"}); !slices.Equal(got, []string{"https://192.0.2.1:2380", "http://[2001:db8::1]:2380"}) {
		t.Errorf("flipped: %v", got)
	}
}

// A client in clear is a way out only where nobody speaks TLS, and never after it has
// learned that the cluster takes TLS alone.
func TestDialClear(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // hangs up on a handshake, as a server does that expects HTTP
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			if n, _ := c.Read(b); bytes.HasPrefix(b[:n], []byte{22}) {
				c.Close()
				continue
			}
			c.Write([]byte("clear"))
			c.Close()
		}
	}()
	marker := filepath.Join(t.TempDir(), "tls")
	for _, tt := range []struct {
		mode   TLSMode
		marked bool
		want   bool
	}{{TLSOff, true, true}, {TLSAllow, true, true}, {TLSAuto, false, true}, {TLSAuto, true, false}, {TLSRequire, false, false}} {
		if err := mark(marker, tt.marked); err != nil {
			t.Fatal(err)
		}
		c, err := newDialer(a.client(t, tt.mode, marker)).dial(ctxFor(t), l.Addr().String())
		if (err == nil) != tt.want {
			t.Errorf("%s, marked %v: %v, want a connection: %v", tt.mode, tt.marked, err, tt.want)
		}
		if err == nil {
			c.Close()
		}
	}
}
