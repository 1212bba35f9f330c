package dnssec

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Key files are those of BIND, so that an operator may go on with the tools, the
// scripts and the habits that there are for them: dnssec-keygen, dnssec-settime and
// dnssec-dsfromkey read and write the same ones.

// timeLayout is how the tools of BIND write an instant, in UTC.
const timeLayout = "20060102150405"

// timeField is one line of a private file. The .key file repeats the times in its
// comments, for people; nobody reads them there, and neither do we.
type timeField struct {
	name string
	at   *time.Time
}

// fields lists the times under their names in a private file.
func (t *Times) fields() []timeField {
	return []timeField{{"Created", &t.Created}, {"Publish", &t.Publish}, {"Activate", &t.Activate}, {"Inactive", &t.Inactive},
		{"Delete", &t.Delete}, {"SyncPublish", &t.SyncPublish}, {"SyncDelete", &t.SyncDelete}}
}

// ErrNoKeys says that a directory holds no key of a zone.
var ErrNoKeys = errors.New("no key files")

// Load reads all keys of a zone in a directory, in a fixed order. Names compare
// without regard to case; the tools write them in lower case. One key that is wrong
// spoils them all: whoever loses a key without noticing may sign with the wrong
// half of a roll, and a caller who is told keeps the keys that it has.
func Load(dir, zone string) ([]*Key, error) {
	zone = dns.CanonicalName(zone)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("dnssec: keys of %s: %w", zone, err)
	}
	prefix := "K" + strings.ReplaceAll(zone, "/", "%2F") + "+"
	var keys []*Key
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".private")
		if !ok || !strings.HasPrefix(strings.ToLower(base), strings.ToLower(prefix)) {
			continue
		}
		k, err := read(filepath.Join(dir, base), zone)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("dnssec: keys of %s in %s: %w", zone, dir, ErrNoKeys)
	}
	sortKeys(keys)
	return keys, nil
}

// sortKeys puts keys into the order that all nodes have them in.
func sortKeys(keys []*Key) {
	slices.SortFunc(keys, func(a, b *Key) int {
		return cmp.Or(cmp.Compare(b.Public.Flags, a.Public.Flags), cmp.Compare(a.Public.Algorithm, b.Public.Algorithm),
			cmp.Compare(a.Tag(), b.Tag()), strings.Compare(a.Public.PublicKey, b.Public.PublicKey))
	})
}

// read takes both files of one key. The mode comes first, so that a key that others
// may have read by now is never used without anybody knowing.
func read(path, zone string) (*Key, error) {
	fail := func(err error) (*Key, error) { return nil, fmt.Errorf("dnssec: key %s: %w", path, err) }
	info, err := os.Stat(path + ".private")
	if err != nil {
		return fail(err)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return fail(fmt.Errorf("mode of .private is %04o: whoever reads it can sign for the zone; want 0600", m))
	}
	public, err := readPublic(path + ".key")
	if err != nil {
		return fail(err)
	}
	if dns.CanonicalName(public.Hdr.Name) != zone || public.Protocol != 3 || public.Flags&dns.ZONE == 0 {
		return fail(fmt.Errorf("not a zone key of %s", zone))
	}
	if !supported(public.Algorithm) {
		return fail(fmt.Errorf("algorithm %d: want %d (ECDSA P-256) or %d (Ed25519)", public.Algorithm, P256, Ed25519))
	}
	// What a tool wrote as TTL must not make one node's DNSKEY RRset unlike another's.
	public.Hdr.Name, public.Hdr.Ttl, public.Hdr.Class = zone, TTL, dns.ClassINET
	text, err := os.ReadFile(path + ".private")
	if err != nil {
		return fail(err)
	}
	private, err := public.ReadPrivateKey(bytes.NewReader(text), path)
	if err != nil {
		return fail(err)
	}
	t, err := parseTimes(text)
	if err != nil {
		return fail(err)
	}
	k, err := newKey(public, private, t)
	if err != nil {
		return fail(err)
	}
	k.File = path
	return k, nil
}

// readPublic takes the DNSKEY record of a .key file, which is a master file with
// comments before it.
func readPublic(path string) (*dns.DNSKEY, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rr, err := dns.ReadRR(f, path)
	if err != nil {
		return nil, err
	}
	k, ok := rr.(*dns.DNSKEY)
	if !ok {
		return nil, errors.New("holds no DNSKEY record")
	}
	return k, nil
}

// parseTimes reads the times in a private file, which the library passes over. Lines
// of other names are for others.
func parseTimes(text []byte) (t Times, err error) {
	fields := t.fields()
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		i := slices.IndexFunc(fields, func(f timeField) bool { return f.name == strings.TrimSpace(name) })
		if i < 0 {
			continue
		}
		if *fields[i].at, err = time.Parse(timeLayout, strings.TrimSpace(value)); err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
	}
	return t, lines.Err()
}

// Save writes both files of a key. An existing private file is replaced as a
// whole, since half of a key is none. The private file goes first: a node that
// looks in between finds a key without its public half, says so, and looks again.
func (k *Key) Save(dir string) (path string, err error) {
	path = filepath.Join(dir, k.Name())
	role := "a zone-signing key"
	if k.SEP() {
		role = "a key-signing key"
	}
	public := fmt.Sprintf("; This is %s, keyid %d, for %s\n%s\n", role, k.Tag(), k.Zone(), k.Public)
	private := k.Public.PrivateKeyString(k.signer.(steady).Signer)
	for _, f := range k.Times.fields() {
		if !f.at.IsZero() {
			private += fmt.Sprintf("%s: %s\n", f.name, f.at.UTC().Format(timeLayout))
		}
	}
	if err = replace(path+".private", private, 0o600); err == nil {
		err = replace(path+".key", public, 0o644)
	}
	if err != nil {
		return "", fmt.Errorf("dnssec: save key %s: %w", k.Name(), err)
	}
	return path, nil
}

// replace writes a file beside the old one and puts it in its place, on disk before it
// has the name: after a power cut there is the old key or the new one.
func replace(path, text string, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// With returns the key with other times, as a roll sets them.
func (k *Key) With(t Times) *Key {
	c := *k
	c.Times = t
	return &c
}
