package transfer

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// Key is a shared secret by its name (RFC 8945).
type Key struct {
	// Name and Algorithm are domain names, in lower case and fully qualified.
	Name, Algorithm string

	secret []byte
}

// hashOf returns the hash of an algorithm, nil for one that is not spoken: MD5
// and SHA-1 are only for compatibility with what should be gone (RFC 8945
// section 6).
func hashOf(algorithm string) func() hash.Hash {
	switch algorithm {
	case dns.HmacSHA256:
		return sha256.New
	case dns.HmacSHA384:
		return sha512.New384
	case dns.HmacSHA512:
		return sha512.New
	}
	return nil
}

// mac starts a MAC with the key.
func (k *Key) mac() hash.Hash { return hmac.New(hashOf(k.Algorithm), k.secret) }

// Keyring holds keys by name. It is immutable; a nil one holds none.
type Keyring struct{ keys map[string]*Key }

// Find returns the key of a name, or nil.
func (r *Keyring) Find(name string) *Key {
	if r == nil {
		return nil
	}
	return r.keys[dns.CanonicalName(name)]
}

// minSecret is the shortest secret taken, in octets: what is shorter can be tried out.
const minSecret = 16

// LoadKeys reads a file of secrets, which nobody but its owner may read.
func LoadKeys(path string) (*Keyring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("transfer: keys: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("transfer: keys: %w", err)
	}
	if m := st.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("transfer: keys: %s has mode %04o: others could read the secrets, want 0600", path, m)
	}
	return ParseKeys(path, f)
}

// ParseKeys reads keys, one a line as dig and kdig take them after -y:
// ALGORITHM:NAME:SECRET, the secret in base 64. Empty lines and what follows # are
// passed over. The error names file and line, and never the secret.
func ParseKeys(file string, r io.Reader) (*Keyring, error) {
	ring := &Keyring{keys: make(map[string]*Key)}
	in := bufio.NewScanner(r)
	for line := 1; in.Scan(); line++ {
		text, _, _ := strings.Cut(in.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		k, err := parseKey(text)
		if err == nil && ring.keys[k.Name] != nil {
			err = fmt.Errorf("key %s stands twice", k.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("transfer: keys: %s:%d: %w", file, line, err)
		}
		ring.keys[k.Name] = k
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("transfer: keys: %s: %w", file, err)
	}
	return ring, nil
}

// parseKey reads one key.
func parseKey(text string) (*Key, error) {
	f := strings.Split(text, ":")
	if len(f) != 3 {
		return nil, fmt.Errorf("%d fields: want ALGORITHM:NAME:SECRET", len(f))
	}
	k := &Key{Name: dns.CanonicalName(f[1]), Algorithm: dns.CanonicalName(f[0])}
	if hashOf(k.Algorithm) == nil {
		return nil, fmt.Errorf("algorithm %q: want hmac-sha256, hmac-sha384 or hmac-sha512", f[0])
	}
	// A name that comes back from a message in another spelling would never be found.
	if read, _, err := dns.UnpackDomainName(wireName(k.Name), 0); err != nil || read != k.Name || k.Name == "." {
		return nil, fmt.Errorf("%q is not a key name", f[1])
	}
	var err error
	if k.secret, err = base64.StdEncoding.DecodeString(f[2]); err != nil {
		return nil, fmt.Errorf("key %s: the secret is not base 64", k.Name)
	}
	if n := len(k.secret); n < minSecret {
		return nil, fmt.Errorf("key %s: a secret of %d octets, want at least %d", k.Name, n, minSecret)
	}
	return k, nil
}
