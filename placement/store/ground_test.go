package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// ctxFor bounds a test, so that what hangs fails with a name.
func ctxFor(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// freeURL returns a loopback URL whose port nobody uses.
func freeURL(t testing.TB) string {
	t.Helper()
	// Below the ports which the kernel gives to connections: one of those would be
	// somebody's own before the member listens.
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			defer l.Close()
			return "http://" + l.Addr().String()
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return ""
}

// membersFor names n members on loopback.
func membersFor(t testing.TB, n int) []Member {
	t.Helper()
	var out []Member
	for i := range n {
		out = append(out, Member{fmt.Sprintf("m%d", i+1), freeURL(t), []string{freeURL(t)}})
	}
	return out
}

func startMember(t testing.TB, members []Member, i int, dir string) *Embedded {
	t.Helper()
	e, err := StartEmbedded(ctxFor(t), EmbeddedConfig{Name: members[i].Name, Dir: dir, Members: members})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// startSingle runs a cluster of one for the length of a test.
func startSingle(t testing.TB) *Embedded {
	t.Helper()
	e := startMember(t, membersFor(t, 1), 0, t.TempDir())
	t.Cleanup(e.Close)
	if err := e.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	return e
}

// eachGround runs a test against every implementation; open may be called
// several times for several Stores on the same ground.
func eachGround(t *testing.T, test func(t *testing.T, open func() *Store)) {
	opener := func(t *testing.T, c Config) func() *Store {
		return func() *Store {
			s, err := Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
	}
	t.Parallel()
	t.Run("memory", func(t *testing.T) { test(t, opener(t, Config{Memory: NewMemory()})) })
	t.Run("file", func(t *testing.T) {
		test(t, opener(t, Config{File: filepath.Join(t.TempDir(), "store")}))
	})
	t.Run("etcd", func(t *testing.T) {
		test(t, opener(t, Config{Etcd: &Etcd{Endpoints: startSingle(t).Endpoints()}}))
	})
}
