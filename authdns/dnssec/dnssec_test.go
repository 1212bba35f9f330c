package dnssec

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	past = noon.AddDate(-1, 0, 0)
)

func since(t time.Time) Times { return Times{Publish: t, Activate: t} }

func key(t testing.TB, algorithm uint8, sep bool, times Times) *Key {
	t.Helper()
	k, err := Generate("demo.test.", algorithm, sep, times)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func records(t testing.TB, lines ...string) []dns.RR {
	t.Helper()
	var out []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rr)
	}
	return out
}

// TestFiles: what is saved is loaded, with its times, and signs as before.
func TestFiles(t *testing.T) {
	for _, alg := range []uint8{P256, Ed25519} {
		dir := t.TempDir()
		k := key(t, alg, true, Times{Created: noon, Publish: noon, Activate: noon.Add(time.Hour), SyncPublish: noon.Add(25 * time.Hour)})
		if _, err := k.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := Load(dir, "Demo.test")
		if err != nil || len(got) != 1 {
			t.Fatalf("%d keys, %v", len(got), err)
		}
		if got[0].Times != k.Times || !dns.IsDuplicate(got[0].Public, k.Public) || !got[0].SEP() {
			t.Errorf("saved %v %v, loaded %v %v", k.Public, k.Times, got[0].Public, got[0].Times)
		}
		set := records(t, "www.demo.test. 60 A 192.0.2.1")
		w := WindowAt(noon, "www.demo.test.", dns.TypeA)
		a, err1 := k.sign(set, w, 60)
		b, err2 := got[0].sign(set, w, 60)
		if err := errors.Join(err1, err2); err != nil || a.Signature != b.Signature {
			t.Errorf("algorithm %d: another signature by the same key, %v", alg, err)
		}
		if err := b.Verify(k.Public, set); err != nil {
			t.Errorf("algorithm %d: %v", alg, err)
		}
	}
}

// TestForeignFiles: keys made by dnssec-keygen of BIND 9.18.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{".key": 0o644, ".private": 0o600} {
		for _, base := range []string{"Kdemo.test.+013+22420", "Kdemo.test.+015+25312"} {
			b, err := os.ReadFile(filepath.Join("testdata", base+name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, base+name), b, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	keys, err := Load(dir, "demo.test.")
	if err != nil || len(keys) != 2 || keys[0].Tag() != 22420 || !keys[0].SEP() || keys[1].Tag() != 25312 || keys[1].SEP() {
		t.Fatalf("%v, %v", keys, err)
	}
	made := time.Date(2026, 11, 22, 4, 55, 52, 0, time.UTC)
	if want := (Times{Created: made, Publish: made, Activate: made}); keys[0].Times != want {
		t.Errorf("times %v, want %v", keys[0].Times, want)
	}
}

// TestFilesRefused: what is wrong with key files is said, and nothing is signed
// with what is left.
func TestFilesRefused(t *testing.T) {
	edit := func(suffix string, change func(string) string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			b, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path+suffix, []byte(change(string(b))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := key(t, P256, false, Times{}).Public.String()
	for _, c := range []struct {
		name, want string
		spoil      func(t *testing.T, path string)
	}{
		{"others may read it", "want 0600", func(t *testing.T, path string) {
			if err := os.Chmod(path+".private", 0o640); err != nil {
				t.Fatal(err)
			}
		}},
		{"no public half", "no such file", func(t *testing.T, path string) { os.Remove(path + ".key") }},
		{"another key's public half", "do not belong together", edit(".key", func(string) string { return other + "\n" })},
		{"not of the zone", "not a zone key", edit(".key", func(s string) string { return strings.ReplaceAll(s, "demo.test.", "other.test.") })},
		{"no record", "DNSKEY", edit(".key", func(string) string { return "demo.test. A 192.0.2.1\n" })},
		{"RSA", "algorithm 8", edit(".key", func(s string) string { return strings.Replace(s, " 3 13 ", " 3 8 ", 1) })},
		{"cut short", "key", edit(".private", func(s string) string { return s[:40] })},
		{"no instant", "Activate", edit(".private", func(s string) string { return s + "Activate: soon\n" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path, err := key(t, P256, false, Times{}).Save(dir)
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(t, path)
			if keys, err := Load(dir, "demo.test."); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("loaded %d keys, error %v; want one with %q", len(keys), err, c.want)
			}
		})
	}
	if _, err := Load(t.TempDir(), "demo.test."); !errors.Is(err, ErrNoKeys) {
		t.Errorf("an empty directory: %v", err)
	}
}

// TestRing: which key does what, by role and by time.
func TestRing(t *testing.T) {
	ksk, zsk := key(t, P256, true, Times{}), key(t, P256, false, Times{})
	ed := key(t, Ed25519, true, Times{})
	at := func(k *Key, times Times) *Key { return k.With(times) }
	for _, c := range []struct {
		name                         string
		keys                         []*Key
		published, apex, data, asked []*Key
	}{
		{"KSK and ZSK", []*Key{zsk, ksk}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, []*Key{ksk}},
		{"one CSK", []*Key{ksk}, []*Key{ksk}, []*Key{ksk}, []*Key{ksk}, []*Key{ksk}},
		{"one key without SEP", []*Key{zsk}, []*Key{zsk}, []*Key{zsk}, []*Key{zsk}, nil},
		{"RFC 4035 2.2: two algorithms sign everything", []*Key{ksk, zsk, ed}, []*Key{ksk, ed, zsk}, []*Key{ksk, ed}, []*Key{zsk, ed}, []*Key{ksk, ed}},
		{"RFC 6781 4.1.1.1: a ZSK published ahead", []*Key{ksk, zsk, at(key(t, P256, false, Times{}), since(noon.Add(time.Second)))}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, []*Key{ksk}},
		{"a deleted key", []*Key{ksk, zsk, at(ed, Times{Publish: past, Activate: past, Delete: noon})}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, []*Key{ksk}},
		{"a DS that the parent shall not have yet", []*Key{at(ksk, Times{Publish: past, Activate: past, SyncPublish: noon.Add(1)}), zsk}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, nil},
		{"made by dnssec-keygen -G", []*Key{ksk, zsk, at(ed, Times{Created: past})}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, []*Key{ksk}},
		{"RFC 7583 3.3.2: a DS before its key", []*Key{ksk, zsk, at(ed, Times{SyncPublish: noon})}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, []*Key{ksk, ed}},
		{"and one after it", []*Key{ksk, zsk, at(ed, Times{Publish: past, Activate: past, Inactive: noon, Delete: noon, SyncDelete: noon.Add(1)})}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, []*Key{ksk, ed}},
		{"a DS that it shall have no more", []*Key{at(ksk, Times{Publish: past, Activate: past, SyncDelete: noon}), zsk}, []*Key{ksk, zsk}, []*Key{ksk}, []*Key{zsk}, nil},
	} {
		r, err := NewRing("demo.test.", c.keys, noon)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, g := range []struct {
			what      string
			got, want []*Key
		}{{"published", r.published, c.published}, {"apex", r.apex, c.apex}, {"data", r.data, c.data}, {"the parent's", r.synced, c.asked}} {
			if tags(g.got) != tags(g.want) {
				t.Errorf("%s: %s are %s, want %s", c.name, g.what, tags(g.got), tags(g.want))
			}
		}
	}
	for name, keys := range map[string][]*Key{
		"no keys": nil, "none published": {at(ksk, since(noon.Add(1)))}, "none signs": {at(ksk, Times{Publish: past, Activate: past, Inactive: noon})},
	} {
		if _, err := NewRing("demo.test.", keys, noon); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func tags(keys []*Key) string {
	var out []string
	for _, k := range keys {
		out = append(out, k.Name())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestWindow: at every instant a signature is valid, five days are left, and the
// windows of many names do not begin together.
func TestWindow(t *testing.T) {
	begins := map[time.Time]int{}
	for i := range 1000 {
		owner := strings.Repeat("x", i%50+1) + strings.Repeat("y", i/50) + ".demo.test."
		begins[WindowAt(noon, owner, dns.TypeA).Inception]++
		for at := noon; at.Before(noon.Add(Refresh)); at = at.Add(7*time.Hour + time.Second) {
			w := WindowAt(at, owner, dns.TypeA)
			if at.Sub(w.Inception) < Backdate || w.Expiration.Sub(at) <= Validity-Refresh || w.Expiration.Sub(w.Inception) != Validity+Backdate {
				t.Fatalf("at %s: %s to %s", at, w.Inception, w.Expiration)
			}
		}
	}
	most := 0
	for _, n := range begins {
		most = max(most, n)
	}
	if len(begins) != int(Refresh/Tick) || most > 60 {
		t.Errorf("1000 windows begin at %d instants, up to %d at one", len(begins), most)
	}
}

// TestIdentity: signatures are the same for the same records in another order, and
// for nothing else.
func TestIdentity(t *testing.T) {
	ksk, zsk := key(t, P256, true, Times{}), key(t, P256, false, Times{})
	ring := func(at time.Time, keys ...*Key) *Ring {
		r, err := NewRing("demo.test.", keys, at)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	id := func(r *Ring, ttl uint32, lines ...string) ID {
		i, err := r.Identify(records(t, lines...), ttl)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	const one, two = "www.demo.test. 60 A 192.0.2.1", "www.demo.test. 60 A 192.0.2.2"
	r := ring(noon, ksk, zsk)
	first := id(r, 60, one, two)
	if id(r, 60, two, one) != first || id(r, 60, "www.demo.test. 20 A 192.0.2.1", two) != first {
		t.Error("order or served TTL make another signature")
	}
	if id(ring(noon.Add(time.Minute), ksk, zsk), 60, one, two) != first {
		t.Error("a minute makes another signature")
	}
	for name, other := range map[string]ID{
		"records": id(r, 60, one), "TTL": id(r, 61, one, two), "name": id(r, 60, "w.demo.test. 60 A 192.0.2.1", "w.demo.test. 60 A 192.0.2.2"),
		"keys": id(ring(noon, ksk), 60, one, two), "two days": id(ring(noon.Add(Refresh), ksk, zsk), 60, one, two),
	} {
		if other == first {
			t.Errorf("another %s, and the same signature", name)
		}
	}
}

// TestSuccessor: RFC 4034 section 6.1 order, also where the name is full.
func TestSuccessor(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 61)+".", 4) // 249 octets
	for name, want := range map[string]string{
		".":                                 "\\000.",
		"demo.test.":                        "\\000.demo.test.",
		"*.demo.test.":                      "\\000.*.demo.test.",
		"abc." + long:                       "\\000.abc." + long,
		"abcd." + long:                      "abcd\\000." + long,
		"abcde." + long:                     "abcdf." + long,
		"abcd@." + long:                     "abcd[." + long,
		"abcd\\255." + long:                 "abce." + long,
		"\\255\\255\\255\\255\\255." + long: long,
	} {
		if got := Successor(name); got != want {
			t.Errorf("after %s comes %s, want %s", name, got, want)
		}
	}
}

func TestDenial(t *testing.T) {
	n := Denial("www.demo.test.", []uint16{dns.TypeTXT, dns.TypeA, dns.TypeA}, 30)
	if want := "www.demo.test.\t30\tIN\tNSEC\t\\000.www.demo.test. A TXT RRSIG NSEC"; n.String() != want {
		t.Errorf("%s, want %s", n, want)
	}
	n = Denial("nix.demo.test.", []uint16{dns.TypeNXNAME}, 30)
	if !slices.Equal(n.TypeBitMap, []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME}) {
		t.Errorf("%s", n)
	}
}

// TestCache: pinned signatures outlive everything while they are asked for, others
// only as long as there is room.
func TestCache(t *testing.T) {
	c, sigs := NewCache(10), records(t, "demo.test. A 192.0.2.1")
	c.Put(ID{0, 1}, sigs, true)
	c.Put(ID{0, 2}, sigs, false)
	for i := range 100 {
		c.Put(ID{1, byte(i)}, sigs, false)
		if _, ok := c.Get(ID{0, 2}); !ok {
			t.Fatalf("one that is asked for was forgotten after %d others", i)
		}
		if _, passing := c.Len(); passing > 20 {
			t.Fatalf("%d held, want 20 at most", passing)
		}
	}
	if _, ok := c.Get(ID{1, 1}); ok {
		t.Error("one that nobody asked for was kept over 98 others")
	}
	for range 3 {
		c.Turn()
		if _, ok := c.Get(ID{0, 1}); !ok {
			t.Fatal("a pinned one was forgotten")
		}
	}
	c.Turn()
	c.Turn()
	if kept, _ := c.Len(); kept != 0 {
		t.Errorf("%d pinned after a round without any use", kept)
	}
}

func TestBudget(t *testing.T) {
	now := noon
	b := NewBudget(3, func() time.Time { return now })
	take := func() (n int) {
		for range 10 {
			if b.Take() {
				n++
			}
		}
		return n
	}
	if n := take(); n != 3 {
		t.Errorf("took %d of 3", n)
	}
	now = now.Add(999 * time.Millisecond)
	if n := take(); n != 0 {
		t.Errorf("took %d more within the second", n)
	}
	now = now.Add(time.Millisecond)
	if n := take(); n != 3 {
		t.Errorf("took %d of 3 in the next second", n)
	}
}

// FuzzLoad holds for any files: an error or a key that signs, no panic.
func FuzzLoad(f *testing.F) {
	dir := f.TempDir()
	path, err := key(f, Ed25519, true, Times{Created: noon}).Save(dir)
	if err != nil {
		f.Fatal(err)
	}
	public, _ := os.ReadFile(path + ".key")
	private, _ := os.ReadFile(path + ".private")
	f.Add(public, private)
	f.Add([]byte("demo.test. DNSKEY 257 3 13 AAAA"), []byte("Private-key-format: v1.3\nAlgorithm: 13\nPrivateKey: AAAA\n"))
	f.Add([]byte("demo.test. DNSKEY 257 3 13 "), []byte("Private-key-format: v1.3\nAlgorithm: 15\nPrivateKey: AAAA\n"))
	f.Fuzz(func(t *testing.T, public, private []byte) {
		dir := t.TempDir()
		base := filepath.Join(dir, "Kdemo.test.+013+00001")
		os.WriteFile(base+".key", public, 0o600)
		os.WriteFile(base+".private", private, 0o600)
		keys, err := Load(dir, "demo.test.")
		if err == nil && len(keys) != 1 {
			t.Fatal("no key and no error")
		}
	})
}
