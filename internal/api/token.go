package api

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Words of a role in token files and certificates.
const (
	WordViewer   = "viewer"
	WordOperator = "operator"
)

// roleOf reads a role's word.
func roleOf(word string) (role, bool) {
	switch word {
	case WordViewer:
		return roleRead, true
	case WordOperator:
		return roleOperate, true
	}
	return roleNone, false
}

// tokenHead marks a token, so that scanners of repositories and logs find one which
// lies where it should not.
const tokenHead = "rhumb_"

// Tokens are those of a file: a line each with name, role and the SHA-256 of the
// token, which itself stands nowhere. The file is read anew when it changes, so that
// a token taken out of it ends at once; a file that cannot be read leaves the last
// good one standing. Safe for concurrent use.
type Tokens struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	stamp  stamp
	byHash map[[sha256.Size]byte]caller
}

// stamp is what of a file changes when it is replaced.
type stamp struct {
	size int64
	mod  time.Time
}

// OpenTokens reads a token file. One that others than its owner may write is
// refused: whoever writes it operates the fleet.
func OpenTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	_, err := t.refresh()
	return t, err
}

// refresh reads the file if it is another one than last time.
func (t *Tokens) refresh() (changed bool, err error) {
	fi, err := os.Stat(t.path)
	if err != nil {
		return false, fmt.Errorf("api: tokens: %w", err)
	}
	now := stamp{fi.Size(), fi.ModTime()}
	if now == t.stamp {
		return false, nil
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return true, fmt.Errorf("api: tokens %s: mode %s: others may write it, and whoever does operates the fleet; chmod go-w", t.path, fi.Mode().Perm())
	}
	data, err := os.ReadFile(t.path)
	if err != nil {
		return true, fmt.Errorf("api: tokens: %w", err)
	}
	byHash, err := parseTokens(data)
	if err != nil {
		return true, fmt.Errorf("api: tokens %s: %w", t.path, err)
	}
	t.stamp, t.byHash = now, byHash
	return true, nil
}

// parseTokens reads lines NAME ROLE SHA256; "#" begins a comment.
func parseTokens(data []byte) (map[[sha256.Size]byte]caller, error) {
	out := make(map[[sha256.Size]byte]caller)
	names := make(map[string]bool)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d: want NAME ROLE SHA256", n)
		}
		r, known := roleOf(f[1])
		sum, err := hex.DecodeString(f[2])
		switch {
		case !known:
			return nil, fmt.Errorf("line %d: role %q is neither %s nor %s", n, f[1], WordViewer, WordOperator)
		case err != nil || len(sum) != sha256.Size:
			return nil, fmt.Errorf("line %d: the third word is no SHA-256 in hex; rhumb token makes the line", n)
		case names[f[0]]:
			return nil, fmt.Errorf("line %d: %s stands twice", n, f[0])
		}
		names[f[0]], out[[sha256.Size]byte(sum)] = true, caller{role: r, who: "token " + f[0]}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("no token in it")
	}
	return out, nil
}

// caller returns whose token a secret is. It looks for the hash, so that the time it
// takes tells nothing about a token.
func (t *Tokens) caller(secret string) (caller, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if changed, err := t.refresh(); err != nil && changed {
		t.log.Error("token file refused, the tokens in use stay", "err", err)
	}
	c, ok := t.byHash[sha256.Sum256([]byte(secret))]
	return c, ok
}

// NewToken makes a token, and its line for the token file.
func NewToken(name, word string) (secret, line string, err error) {
	if _, ok := roleOf(word); !ok {
		return "", "", fmt.Errorf("%w: role %q is neither %s nor %s", ErrInvalid, word, WordViewer, WordOperator)
	}
	if name == "" || strings.ContainsAny(name, "# \t\r\n") {
		return "", "", fmt.Errorf("%w: %q is no name for a token: one word, please", ErrInvalid, name)
	}
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", fmt.Errorf("api: new token: %w", err)
	}
	secret = tokenHead + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(secret))
	return secret, fmt.Sprintf("%s %s %s", name, word, hex.EncodeToString(sum[:])), nil
}
