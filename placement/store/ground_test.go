package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ctxFor bounds a test, so that what hangs fails with a name.
func ctxFor(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// freeURL returns a loopback URL whose port nobody uses, and nobody else is given until
// the test ends.
func freeURL(t testing.TB) string {
	t.Helper()
	// Below the ports which the kernel gives to connections: one of those would be
	// somebody's own before the member listens.
	for range 1000 {
		if port := 10_000 + rand.IntN(20_000); reserve(t, port) {
			return fmt.Sprintf("http://127.0.0.1:%d", port)
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return ""
}

// reserve binds a port if nobody has, and keeps it until the test ends. Who listens lets
// others do so beside a socket that only holds the port, as this one does from then on;
// who reserves does not, which keeps tests that run side by side apart.
func reserve(t testing.TB, port int) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}) != nil {
		unix.Close(fd)
		return false
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	return true
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
