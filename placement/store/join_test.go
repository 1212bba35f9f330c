package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A member that begins without data does as the others have it, and does not begin
// another cluster.
func TestJoin(t *testing.T) {
	a := newAuthority(t)
	cert, err := tls.LoadX509KeyPair(a.files.Cert, a.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	var now atomic.Value // what the others say: a request that was given up may still be under way
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		says := now.Load().(string)
		if r.URL.Path != "/members" || says == "" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, says)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	defer plain.Close()
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.StartTLS()
	defer secure.Close()
	const began, inClear, byTLS = `[{"name":"m2"},{"name":"m1","peerURLs":["http://x"],"clientURLs":["http://x"]}]`,
		`[{"name":"m1","peerURLs":["http://x"]}]`, `[{"name":"m1","peerURLs":["https://x"]}]`
	for _, tt := range []struct {
		name  string
		other string
		mode  TLSMode
		says  string
		clear bool
		err   string
	}{
		{"nobody answers", freeURL(t), TLSAuto, "", false, ""},
		{"nobody answers, both allowed", freeURL(t), TLSAllow, "", true, ""},
		{"no answer of use", secure.URL, TLSAuto, "", false, ""},
		{"an answer that is none", secure.URL, TLSRequire, "<html>", false, ""},
		{"known by TLS", secure.URL, TLSRequire, byTLS, false, ""},
		{"known in clear", secure.URL, TLSAuto, inClear, true, ""},
		{"known in clear, TLS required", secure.URL, TLSRequire, inClear, false, "say auto"},
		{"others know no TLS", plain.URL, TLSAuto, inClear, false, "rhumb identity store"},
		{"others know no TLS, both allowed", plain.URL, TLSAllow, inClear, true, ""},
		{"others know no TLS, which is required", plain.URL, TLSRequire, inClear, false, ""},
		{"its data are gone", secure.URL, TLSAuto, began, false, "data are not here"},
		{"its data are gone, others know no TLS", plain.URL, TLSAuto, began, false, "data are not here"},
	} {
		now.Store(tt.says)
		c := *a.member(tt.mode)
		c.asks = time.Minute // none of them is away: the machine may be busy
		g := &gate{c: c, members: []Member{{Name: "m1"}, {Name: "m2", PeerURL: strings.Replace(tt.other, "https:", "http:", 1)}}}
		clear, err := g.join(ctxFor(t), "m1")
		if clear != tt.clear || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: in clear %v, %v; want %v, %q", tt.name, clear, err, tt.clear, tt.err)
		}
	}
}

// One member of three has a certificate that has run out: the others go on, the log
// says whose it is, and with a new one, put there while it runs, it takes part again.
// Its data lost, it does not begin another cluster.
func TestMemberRunsOut(t *testing.T) {
	t.Parallel()
	u := newUpgrade(t)
	dir := t.TempDir()
	late := TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: u.a.files.CA, Name: testStoreName}
	u.a.put(t, late, u.a.issue(t, testStoreName))
	for i, files := range []TLSFiles{u.a.files, u.a.files, late} {
		u.begin(t, i, u.a.memberOf(files, TLSAuto))
	}
	u.takePart(t)
	s := openAs(t, append(u.members[0].ClientURLs, u.members[1].ClientURLs...), u.a.client(t, TLSAuto, ""))
	if err := answers(s, true); err != nil {
		t.Fatal(err)
	}
	u.a.put(t, late, u.a.issueUntil(t, testStoreName, time.Now().Add(-time.Minute)))
	u.cut()
	w := startWriter(t, s, "late")
	eventually(t, "the log of the others and its own say why", func() error {
		for _, want := range []string{"certificate has expired", "certificate=\"ams1, serial", "it refuses this member's certificate"} {
			if !strings.Contains(u.log.String(), want) {
				return fmt.Errorf("no %q", want)
			}
		}
		return nil
	}, u.log)
	w.more(t)
	u.applied(t, 0, 1)
	u.tellsClients(t, 2, "certificate has expired")
	u.a.put(t, late, u.a.issue(t, testStoreName))
	u.applied(t, 0, 2)
	w.end(t, s)

	u.kill(2)
	if err := os.RemoveAll(u.dirs[2]); err != nil {
		t.Fatal(err)
	}
	anew := u.a.memberOf(late, TLSAuto)
	anew.asks = time.Minute // the others are there, and say so when they have the time
	if _, err := u.start(t, 2, anew); err == nil || !strings.Contains(err.Error(), "data are not here") {
		t.Errorf("without its data: %v", err)
	}
}

// tellsClients awaits that a client of one member logs why it is not connected.
func (u *upgrade) tellsClients(t *testing.T, i int, want string) {
	t.Helper()
	var log lockedBuilder
	s, err := Open(t.Context(), Config{Etcd: &Etcd{Endpoints: u.members[i].ClientURLs, Group: u.a.client(t, TLSAuto, "")},
		Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	eventually(t, "a client says why", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := s.Heartbeat(ctx); err == nil || !strings.Contains(log.String(), want) {
			return fmt.Errorf("%v, want %q", err, want)
		}
		return nil
	}, &log)
}
