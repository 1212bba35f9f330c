package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// TestGoodNodes: the shipped node files load, and mean what they say.
func TestGoodNodes(t *testing.T) {
	files, err := filepath.Glob("../../etc/node*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %v (%v)", files, err)
	}
	for _, file := range append(files, "testdata/good/node/node.yaml") {
		n, err := LoadNode(file)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if n.Node.Name == "" || len(n.Node.Roles) == 0 || !filepath.IsAbs(n.Listen.Admin) {
			t.Errorf("%s: %+v", file, n)
		}
	}
}

// TestNodeDefaults: paths are relative to the file, what is left out has its default.
func TestNodeDefaults(t *testing.T) {
	n, err := LoadNode("testdata/good/node/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if n.Node.DataDir != "testdata/good/node/data" || n.Store.File != "testdata/good/node/data/state.json" {
		t.Errorf("data %s, store %s", n.Node.DataDir, n.Store.File)
	}
	if b := n.BGP; b.Engine != "gobgp" || b.Port != 179 || b.Hold.D() != 9*time.Second || b.Peers[0].Password != "secret" {
		t.Errorf("%+v", b)
	}
	for i, want := range []BFD{{placement.Duration(50 * time.Millisecond), 3, 4784, true}, {placement.Duration(300 * time.Millisecond), 3, 3784, true}, {}} {
		if n.BGP.Peers[i].BFD != want {
			t.Errorf("peer %d: bfd %+v, want %+v", i, n.BGP.Peers[i].BFD, want)
		}
	}
	if !n.Has(RoleBGP) || n.Has(RoleEdge) || n.Listen.Admin != "/run/rhumb" {
		t.Errorf("%+v", n)
	}
}

// TestBadNodes: every kept mistake is refused where it stands and for what it is.
func TestBadNodes(t *testing.T) {
	dirs, err := filepath.Glob("testdata/bad-node/*")
	if err != nil || len(dirs) < 12 {
		t.Fatalf("found %d samples (%v), want at least 12", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, "want"))
			if err != nil {
				t.Fatal(err)
			}
			where, why, _ := strings.Cut(strings.TrimRight(string(b), "\n"), "\n")
			n, err := LoadNode(filepath.Join(dir, "node.yaml"))
			if err == nil || n != nil {
				t.Fatalf("was accepted: %+v", n)
			}
			if !strings.Contains(err.Error(), filepath.Join(dir, where)+":") {
				t.Errorf("want position %s, have:\n%v", where, err)
			}
			if !strings.Contains(err.Error(), why) {
				t.Errorf("want reason %q, have:\n%v", why, err)
			}
		})
	}
}

func TestMissingFiles(t *testing.T) {
	if _, err := LoadNode("testdata/none.yaml"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
	if _, err := LoadFleet("testdata/none.yaml", readZone); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}

// mistakes flattens what Load returns.
func mistakes(t *testing.T, err error) (out []*Error) {
	t.Helper()
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			out = append(out, mistakes(t, e)...)
		}
		return out
	}
	var one *Error
	if !errors.As(err, &one) {
		t.Fatalf("%T: %v says nothing of where", err, err)
	}
	return []*Error{one}
}

// assertInside: every mistake stands inside the file, with a reason in one line.
func assertInside(t *testing.T, data []byte, err error) {
	t.Helper()
	if err == nil {
		return
	}
	lines := strings.Count(string(data), "\n") + 1
	for _, e := range mistakes(t, err) {
		if e.Line < 1 || e.Line > lines || e.Column < 1 || e.Reason == "" {
			t.Errorf("%d:%d of %d lines: %q", e.Line, e.Column, lines, e.Reason)
		}
	}
}

// samples returns every file of that name below testdata, good and bad.
func samples(f *testing.F, name string) (out [][]byte) {
	err := filepath.WalkDir("testdata", func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == name {
			b, err := os.ReadFile(path)
			out = append(out, b)
			return err
		}
		return err
	})
	if err != nil || len(out) < 12 {
		f.Fatalf("%d samples of %s (%v)", len(out), name, err)
	}
	return out
}

// FuzzLoadNode: whatever bytes a node file holds, it is read or refused, and
// mistakes stand inside the file.
func FuzzLoadNode(f *testing.F) {
	for _, b := range samples(f, "node.yaml") {
		f.Add(b)
	}
	f.Add([]byte("node: &a {roles: *a}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		src, err := newSource("node.yaml", data)
		if err != nil {
			assertInside(t, data, err)
			return
		}
		n := &Node{}
		if err := src.decode(n); err != nil {
			assertInside(t, data, err)
			return
		}
		n.defaults("/etc/rhumb")
		n.check(src)
		assertInside(t, data, src.err())
		if src.err() == nil && (len(n.Node.Roles) == 0 || !isLabel(n.Node.Site) || slices.Contains(n.Node.Roles, "")) {
			t.Errorf("accepted %+v", n.Node)
		}
	})
}

// FuzzLoadFleet: the same of a fleet file; what is accepted holds what the rest of
// the program relies on.
func FuzzLoadFleet(f *testing.F) {
	for _, b := range samples(f, "fleet.yaml") {
		f.Add(b)
	}
	f.Add([]byte("version: 1\nsites: &a {<<: *a, x: [*a]}\n"))
	f.Add([]byte("version: 1\nrevoked: ['00:ff']\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		src, err := newSource("fleet.yaml", data)
		if err != nil {
			assertInside(t, data, err)
			return
		}
		b := newBuilder(func(string) ([]byte, error) { return []byte("x"), nil })
		if err := b.add(src, true); err != nil {
			assertInside(t, data, err)
			return
		}
		b.build(func(origin, _ string, _ []byte) (ZoneInfo, error) { return ZoneInfo{Names: []string{origin}}, nil })
		assertInside(t, data, b.err())
		if b.err() != nil {
			return
		}
		for _, s := range b.out.Services {
			if b.out.Policy(s.Policy) == nil || len(b.out.Eligible(&s)) == 0 {
				t.Errorf("accepted service %+v", s)
			}
		}
		for _, p := range b.out.Prefixes {
			if n := len(b.out.AnnouncingSites(&p)); p.MinAnchors(n) > n || p.Slots < 0 {
				t.Errorf("accepted prefix %+v of %d sites", p, n)
			}
		}
	})
}

// TestClientKeys: a key of clients is a prefix or an AS, each in one spelling.
func TestClientKeys(t *testing.T) {
	for key, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.0/24", "2001:db8::/32": "2001:db8::/32", "AS64510": "AS64510", "AS4200000000": "AS4200000000",
		"192.0.2.1/24": "", "192.0.2.1": "", "AS0": "", "AS": "", "AS064510": "", "as64510": "", "AS4294967296": "", "AS-1": "", "AS+1": "",
	} {
		o, ok := clientKey(key)
		if ok != (want != "") || ok && o.Name() != want {
			t.Errorf("%s: %+v %v, want %q", key, o, ok, want)
		}
	}
}

// TestGuardedHTTP: beyond loopback the HTTP listener is taken with a guard, and the
// files are found beside the node file.
func TestGuardedHTTP(t *testing.T) {
	dir := t.TempDir()
	for listen, tls := range map[string]bool{
		`{http: "198.51.100.9:8053", tls: {cert: c, key: k}, tokens: t}`:    true,
		`{http: "[2001:db8::9]:8053", tls: {cert: c, key: k, clients: ca}}`: true,
		`{http: "localhost:8053"}`: false, `{http: "[::1]:8053", tokens: t}`: false, `{http: "127.0.0.53:8053"}`: false,
	} {
		file := filepath.Join(dir, "node.yaml")
		text := "version: 1\nnode: {name: ams1-a, site: ams1, roles: [health]}\nstore: file\nlisten: " + listen + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := LoadNode(file)
		if err != nil {
			t.Errorf("%s: %v", listen, err)
			continue
		}
		if tls && n.Listen.TLS.Cert != filepath.Join(dir, "c") || !tls && n.Listen.TLS.Cert != "" {
			t.Errorf("%s: %+v", listen, n.Listen)
		}
	}
}
