package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhumb/placement"
)

// writer writes one key after the other, and keeps what was acknowledged.
type writer struct {
	acked []string // owned by its goroutine until it ends
	count atomic.Int64
	last  atomic.Value // the error of the last write that was not acknowledged
	wg    sync.WaitGroup
	stop  context.CancelFunc
}

func startWriter(t *testing.T, s *Store, name string) *writer {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &writer{stop: stop}
	w.wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			key := fmt.Sprintf("%s%s/%06d", dirVotes, name, i)
			once, cancel := context.WithTimeout(ctx, 5*time.Second)
			if _, _, err := s.write(once, nil, []op{put(key, []byte("x"))}); err == nil {
				w.acked = append(w.acked, key)
				w.count.Add(1)
			} else {
				w.last.Store(err.Error())
			}
			cancel()
			time.Sleep(5 * time.Millisecond)
		}
	})
	return w
}

// more awaits that writes are acknowledged from here on.
func (w *writer) more(t *testing.T) {
	t.Helper()
	before := w.count.Load()
	eventually(t, "writes are acknowledged", func() error {
		if now := w.count.Load(); now < before+3 {
			return fmt.Errorf("%d of %d, %v", now, before+3, w.last.Load())
		}
		return nil
	})
}

// end stops writing, and tells what was acknowledged and is not there.
func (w *writer) end(t *testing.T, s *Store) {
	t.Helper()
	w.stop()
	w.wg.Wait()
	found, _, err := s.read(ctxFor(t), query{span: under(dirVotes), keysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, p := range found[0] {
		there[p.key] = true
	}
	lost := slices.DeleteFunc(slices.Clone(w.acked), func(k string) bool { return there[k] })
	if len(lost) > 0 || len(w.acked) == 0 {
		t.Errorf("%d of %d acknowledged writes are lost: %v", len(lost), len(w.acked), lost)
	}
	t.Logf("%d writes; last of those that were not acknowledged: %v", len(w.acked), w.last.Load())
}

// upgrade is three members on their way, and what the fleet says of itself.
type upgrade struct {
	*cluster
	a      *authority
	log    *lockedBuilder
	ready  atomic.Bool
	relays []*relay // in front of the ports for members
}

// newUpgrade makes what three members need before they start, and ends them after the
// test: at once, since the last ones of a cluster find nobody to hand over to.
func newUpgrade(t *testing.T) *upgrade {
	t.Helper()
	u := &upgrade{cluster: &cluster{members: membersFor(t, 3), running: make([]*Embedded, 3)}, a: newAuthority(t), log: &lockedBuilder{}}
	for i := range u.members {
		u.relays = append(u.relays, newRelay(t, &u.members[i]))
		u.dirs = append(u.dirs, filepath.Join(t.TempDir(), u.members[i].Name))
	}
	t.Cleanup(func() {
		var all sync.WaitGroup
		for i, e := range u.running {
			if e != nil {
				all.Go(func() { u.kill(i) })
			}
		}
		all.Wait()
	})
	return u
}

// cut ends every connection between members.
func (u *upgrade) cut() {
	for _, r := range u.relays {
		r.cut()
	}
}

// begin starts a member; nil is what an older version does.
func (u *upgrade) begin(t *testing.T, i int, m *MemberTLS) {
	t.Helper()
	var err error
	if u.running[i], err = u.start(t, i, m); err != nil {
		t.Fatal(err)
	}
}

func (u *upgrade) start(t *testing.T, i int, m *MemberTLS) (*Embedded, error) {
	if m != nil {
		m.Ready = func(bool) (bool, string) { return u.ready.Load(), "not all nodes can" }
	}
	return StartEmbedded(ctxFor(t), EmbeddedConfig{Name: u.members[i].Name, Dir: u.dirs[i], Members: u.members, TLS: m,
		ListenPeer: []string{"http://" + u.relays[i].to}, Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(u.log, nil))})
}

// takePart awaits all members.
func (u *upgrade) takePart(t *testing.T) {
	t.Helper()
	for _, e := range u.running {
		if err := e.Ready(ctxFor(t)); err != nil {
			t.Fatalf("%s\n%v", u.log, err)
		}
	}
}

// restart stops a member and starts it anew with other settings. As a crash does, since
// to hand over takes a second or more each time; properly in the long form.
func (u *upgrade) restart(t *testing.T, i int, m *MemberTLS) {
	t.Helper()
	if os.Getenv("RHUMB_SOAK") != "" {
		u.running[i].Close()
		u.running[i] = nil
	} else {
		u.kill(i)
	}
	u.begin(t, i, m)
	u.takePart(t)
}

// applied awaits that members have what the first of them has.
func (u *upgrade) applied(t *testing.T, of ...int) {
	t.Helper()
	want := u.running[of[0]].server.Server.AppliedIndex()
	eventually(t, "all have applied it", func() error {
		for _, i := range of {
			if now := u.running[i].server.Server.AppliedIndex(); now < want {
				return fmt.Errorf("%s has applied %d of %d", u.members[i].Name, now, want)
			}
		}
		return nil
	}, u.log)
}

// await waits until every member sees so many in clear.
func (u *upgrade) await(t *testing.T, clear int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d members in clear", clear), func() error {
		for i, e := range u.running {
			if l := e.Link(); l.Clear != clear || l.Members != 3 {
				return fmt.Errorf("%s: %+v", u.members[i].Name, l)
			}
		}
		return nil
	}, u.log)
}

func (u *upgrade) all() (out []string) {
	for _, m := range u.members {
		out = append(out, m.ClientURLs...)
	}
	return out
}

// unreadable tells whether relays saw a word while the members were in clear, and see
// nothing of another one now.
func (u *upgrade) unreadable(t *testing.T, s *Store, before string) {
	t.Helper()
	const word = "unreadable-from-here-on"
	if !slices.ContainsFunc(u.relays, func(r *relay) bool { return r.saw(before) }) {
		t.Errorf("no relay between the members ever saw %q: it would see nothing now", before)
	}
	putVote(t, s, vote(word, "a", placement.Up, 1))
	u.applied(t, 0, 1, 2)
	for i, r := range u.relays {
		if r.saw(word) {
			t.Errorf("what is written can be read between members, before %s", u.members[i].Name)
		}
	}
}

// renewed replaces the pair, cuts every connection, and awaits that all members meet
// each other with the new one.
func (u *upgrade) renewed(t *testing.T) {
	t.Helper()
	u.a.renew(t)
	want := u.a.serial
	before := u.running[0].server.Server.AppliedIndex()
	u.cut()
	eventually(t, "members with the new certificate", func() error {
		for i, e := range u.running {
			n := 0
			for _, c := range e.gate.fronts[0].list() {
				if got := c.tls.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != want {
					return fmt.Errorf("%s: serial %d, want %d", u.members[i].Name, got, want)
				}
				n++
			}
			if now := e.server.Server.AppliedIndex(); n == 0 || now <= before {
				return fmt.Errorf("%s: %d connections, applied %d after %d", u.members[i].Name, n, now, before)
			}
		}
		return nil
	})
}

// A cluster made in clear goes over to TLS while it is written to: member by member
// the new version is started, nothing changes until all nodes can, then the members go
// over one by one, and clear ends: on the wire between them, nothing of what is written
// can be read. In the long form, certificates are renewed under it, and TLS is required.
func TestMembersGoOver(t *testing.T) {
	t.Parallel()
	u := newUpgrade(t)
	for i := range u.members {
		u.begin(t, i, nil)
	}
	u.takePart(t)
	marker := filepath.Join(t.TempDir(), "state", "tls")
	old, auto := openAs(t, u.all(), nil), openAs(t, u.all(), u.a.client(t, TLSAuto, marker))
	if err := errors.Join(answers(old, true), answers(auto, true)); err != nil {
		t.Fatalf("in a cluster in clear: %v", err)
	}
	w := startWriter(t, auto, "upgrade")
	w.more(t) // so that the relays have seen some in clear
	for i := range u.members {
		u.restart(t, i, u.a.member(TLSAuto))
		if err := errors.Join(answers(old, true), answers(auto, true)); err != nil {
			t.Fatalf("%s\nwith %d new members: %v", u.log, i+1, err)
		}
	}
	u.await(t, 3)
	if err := auto.LearnTLS(ctxFor(t)); err != nil || auto.Link().Closed {
		t.Errorf("before: %+v, %v", auto.Link(), err)
	}
	u.ready.Store(true)
	u.await(t, 0)
	eventually(t, "clear ends", func() error {
		for _, e := range u.running {
			for _, f := range e.gate.fronts {
				if _, clear := f.count(); clear > 0 {
					return fmt.Errorf("%s: %d in clear", f.name, clear)
				}
			}
		}
		return nil
	})
	if err := errors.Join(answers(auto, true), auto.LearnTLS(ctxFor(t))); err != nil {
		t.Errorf("%s\nafter: %v", u.log, err)
	}
	if b, err := os.ReadFile(marker); err != nil || !auto.Link().Closed || auto.Link().Clear > 0 || len(b) == 0 {
		t.Errorf("the client has not learned it: %+v, %v", auto.Link(), err)
	}
	u.unreadable(t, auto, "upgrade/")
	if err := answers(old, false); err != nil {
		t.Errorf("in clear, after: %v", err)
	}
	w.more(t)
	if os.Getenv("RHUMB_SOAK") != "" {
		u.renewed(t)
		for i := range u.members {
			u.restart(t, i, u.a.member(TLSRequire)) // what it stored says TLS
		}
	}
	w.end(t, auto)
}

// A cluster goes back to clear, where all members allow it, and then an older version
// finds what it knows. What a member refuses on the way, it says.
func TestMembersGoBack(t *testing.T) {
	t.Parallel()
	a, members, dir := newAuthority(t), membersFor(t, 1), t.TempDir()
	start := func(tls *MemberTLS) (*Embedded, error) {
		return StartEmbedded(ctxFor(t), EmbeddedConfig{Name: "m1", Dir: dir, Members: members, TLS: tls})
	}
	refused := func(what string, tls *MemberTLS, want string) {
		t.Helper()
		if e, err := start(tls); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
			if err == nil {
				e.Close()
			}
		}
	}
	marker := filepath.Join(t.TempDir(), "tls")
	lacks := func(mode TLSMode, why error) *MemberTLS { return &MemberTLS{Mode: mode, Lacks: why} }
	mistake := errors.New("another site's")
	refused("begun with another site's pair", lacks(TLSAuto, mistake), "another site's")
	refused("begun without a pair that is required", lacks(TLSRequire, fs.ErrNotExist), fs.ErrNotExist.Error())
	for i, tls := range []*MemberTLS{a.member(TLSRequire), a.member(TLSAllow), nil} {
		e, err := start(tls)
		if err != nil {
			t.Fatal(err)
		}
		clear := min(i, 1)
		eventually(t, fmt.Sprintf("start %d", i), func() error {
			if l := e.Link(); l.Members != 1 || l.Clear != clear {
				return fmt.Errorf("%+v, want %d in clear", l, clear)
			}
			return nil
		})
		s := openAs(t, e.Endpoints(), a.client(t, TLSAuto, marker))
		if err := errors.Join(answers(s, true), s.LearnTLS(ctxFor(t))); err != nil {
			t.Errorf("start %d: %v", i, err)
		}
		if got := s.Link().Closed; got != (i == 0) {
			t.Errorf("start %d: the client takes clear for closed: %v", i, got)
		}
		s.Close()
		e.Close()
		if i == 0 {
			refused("off after all went over", nil, "say allow")
			refused("after all went over, another site's pair", lacks(TLSAuto, mistake), "another site's")
		} else {
			refused("required of members in clear", a.member(TLSRequire), "in clear")
		}
	}
	e, err := start(lacks(TLSAuto, mistake))
	if err != nil {
		t.Fatalf("a member in clear is kept from it by another site's pair: %v", err)
	}
	defer e.Close()
	eventually(t, "link", func() error {
		if l := e.Link(); l.Clear != 1 || !strings.Contains(l.Missing, "another site's") {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
}
