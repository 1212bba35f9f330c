package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// keysOf returns the keys of pairs in their order.
func keysOf(pairs []pair) []string {
	var out []string
	for _, p := range pairs {
		out = append(out, p.key)
	}
	return out
}

func mustWrite(t *testing.T, k kv, conds []cond, ops ...op) int64 {
	t.Helper()
	rev, ok, err := k.write(ctxFor(t), conds, ops)
	if err != nil || !ok {
		t.Fatalf("write: ok %v, err %v", ok, err)
	}
	return rev
}

func mustRead(t *testing.T, k kv, q ...query) ([][]pair, int64) {
	t.Helper()
	out, rev, err := k.read(ctxFor(t), q...)
	if err != nil {
		t.Fatal(err)
	}
	return out, rev
}

// next returns the next batch of a watch; a closed channel fails the test.
func next(t *testing.T, ch <-chan batch) batch {
	t.Helper()
	select {
	case b, ok := <-ch:
		if !ok {
			t.Fatal("watch closed")
		}
		return b
	case <-time.After(time.Minute):
		t.Fatal("watch says nothing")
	}
	return batch{}
}

func TestGroundRanges(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		k := open().kv
		for _, key := range []string{"/t/c", "/t/a", "/t/b", "/u/a"} {
			mustWrite(t, k, nil, put(key, []byte("v"+key)))
		}
		for _, tt := range []struct {
			name string
			q    query
			want []string
		}{
			{"prefix in order", query{span: under("/t/")}, []string{"/t/a", "/t/b", "/t/c"}},
			{"newest first, limited", query{span: under("/t/"), desc: true, limit: 2}, []string{"/t/c", "/t/b"}},
			{"one", query{span: only("/t/b")}, []string{"/t/b"}},
			{"absent", query{span: only("/t/")}, nil},
			{"half open", query{span: span{"/t/b", "/u/a"}}, []string{"/t/b", "/t/c"}},
		} {
			got, _ := mustRead(t, k, tt.q)
			if !slices.Equal(keysOf(got[0]), tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, keysOf(got[0]), tt.want)
			}
		}
		got, _ := mustRead(t, k, query{span: under("/t/"), keysOnly: true}, query{span: only("/u/a")})
		if got[0][0].value != nil || string(got[1][0].value) != "v/u/a" {
			t.Errorf("values: %q, %q", got[0][0].value, got[1][0].value)
		}
	})
}

func TestGroundCompares(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		k := open().kv
		first := mustWrite(t, k, []cond{{"/t/a", 0}}, put("/t/a", []byte("1")), put("/t/b", []byte("1")))
		if _, ok, err := k.write(ctxFor(t), []cond{{"/t/a", 0}}, []op{put("/t/a", []byte("2"))}); ok || err != nil {
			t.Errorf("compare with absent: ok %v, err %v", ok, err)
		}
		second := mustWrite(t, k, []cond{{"/t/a", first}}, put("/t/a", []byte("2")))
		if second <= first {
			t.Errorf("revision went from %d to %d", first, second)
		}
		// All conditions or nothing.
		if _, ok, _ := k.write(ctxFor(t), []cond{{"/t/a", second}, {"/t/b", second}}, []op{put("/t/b", []byte("3"))}); ok {
			t.Error("one false compare of two passed")
		}
		got, rev := mustRead(t, k, query{span: under("/t/")})
		if a, b := got[0][0], got[0][1]; a.mod != second || b.mod != first || string(b.value) != "1" || rev != second {
			t.Errorf("a %d, b %d %q, at %d", a.mod, b.mod, b.value, rev)
		}
		mustWrite(t, k, nil, remove(under("/t/")))
		if got, _ := mustRead(t, k, query{span: under("/t/")}); len(got[0]) != 0 {
			t.Errorf("left after removal: %v", keysOf(got[0]))
		}
		mustWrite(t, k, []cond{{"/t/a", 0}}, put("/t/a", nil))
	})
}

func TestGroundWatch(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		writer, reader := open().kv, open().kv
		from := mustWrite(t, writer, nil, put("/t/a", []byte("1")))
		mustWrite(t, writer, nil, put("/x/a", []byte("elsewhere")))
		mustWrite(t, writer, nil, put("/t/b", []byte("2")), put("/t/c", []byte("3")))
		ctx, cancel := context.WithCancel(ctxFor(t))
		ch := reader.watch(ctx, from, under("/t/"))
		// What was missed may come in one batch or in several; a revision is never torn.
		var seen []string
		for len(seen) < 3 {
			b := next(t, ch)
			for _, c := range b.changes {
				seen = append(seen, c.key)
			}
			if last := b.changes[len(b.changes)-1]; b.rev != last.mod || last.key == "/t/b" {
				t.Errorf("batch at %d ends with %s of %d", b.rev, last.key, last.mod)
			}
		}
		if !slices.Equal(seen, []string{"/t/a", "/t/b", "/t/c"}) {
			t.Errorf("seen %v", seen)
		}
		rev := mustWrite(t, writer, nil, op{key: "/t/b", del: true})
		if b := next(t, ch); b.rev != rev || !b.changes[0].deleted || b.changes[0].key != "/t/b" {
			t.Errorf("deletion: %+v", b)
		}
		cancel()
		for range ch { // closes, or the test's time runs out
		}
	})
}

func TestGroundWatchSpans(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		k := open().kv
		_, rev := mustRead(t, k, query{span: under("/t/")})
		ch := k.watch(ctxFor(t), rev+1, under("/a/"), under("/c/"))
		for _, key := range []string{"/a/1", "/b/1", "/c/1"} {
			mustWrite(t, k, nil, put(key, nil))
		}
		got := []string{next(t, ch).changes[0].key, next(t, ch).changes[0].key}
		slices.Sort(got)
		if !slices.Equal(got, []string{"/a/1", "/c/1"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestGroundLease(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		k, other := open().kv, open().kv
		ctx := ctxFor(t)
		began := time.Now() // before the lease, which is running while the rest is made ready
		short, err := k.grant(ctx, 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		long, err := k.grant(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		rev := mustWrite(t, k, nil, op{key: "/t/a", lease: short}, op{key: "/t/b", lease: short})
		// A key belongs to the lease under which it was put last.
		mustWrite(t, k, nil, op{key: "/t/b", lease: long})
		ch := other.watch(ctx, rev+2, under("/t/"))
		if b := next(t, ch); len(b.changes) != 1 || b.changes[0].key != "/t/a" || !b.changes[0].deleted {
			t.Errorf("after the lease: %+v", b)
		}
		if d := time.Since(began); d < 2*time.Second {
			t.Errorf("lease of 3 s gone after %v", d)
		}
		if err := k.keep(ctx, short); !errors.Is(err, errLease) {
			t.Errorf("keep of a lost lease: %v", err)
		}
		if _, _, err := k.write(ctx, nil, []op{{key: "/t/a", lease: short}}); !errors.Is(err, errLease) {
			t.Errorf("write under a lost lease: %v", err)
		}
		if err := other.keep(ctx, long); err != nil {
			t.Errorf("keep: %v", err)
		}
		if err := k.revoke(ctx, long); err != nil {
			t.Errorf("revoke: %v", err)
		}
		if b := next(t, ch); b.changes[0].key != "/t/b" || !b.changes[0].deleted {
			t.Errorf("after revoke: %+v", b)
		}
	})
}

func TestGroundSizes(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		k := open().kv
		big := bytes.Repeat([]byte{7}, 1536*1024)
		if _, _, err := k.write(ctxFor(t), nil, []op{put("/t/a", big)}); !errors.Is(err, errTooLarge) {
			t.Errorf("1.5 MiB: %v", err)
		}
		if _, _, err := k.write(ctxFor(t), nil, slices.Repeat([]op{{key: "/t/x", del: true}}, 129)); !errors.Is(err, errTooLarge) {
			t.Errorf("129 operations: %v", err)
		}
		mustWrite(t, k, nil, put("/t/a", big[:chunkSize]))
		got, _ := mustRead(t, k, query{span: only("/t/a")})
		if !bytes.Equal(got[0][0].value, big[:chunkSize]) {
			t.Error("a chunk did not come back whole")
		}
	})
}

func TestGroundEndedContext(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		k := open().kv
		if _, _, err := k.read(ctx, query{span: under("/t/")}); !errors.Is(err, context.Canceled) {
			t.Errorf("read: %v", err)
		}
		if _, _, err := k.write(ctx, nil, []op{put("/t/a", nil)}); !errors.Is(err, context.Canceled) {
			t.Errorf("write: %v", err)
		}
	})
}
