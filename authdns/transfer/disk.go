package transfer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// shelf keeps the last good version of each zone on disk: a master file behind a
// line with its digest. The time of the file is when it was last confirmed.
type shelf struct{ dir string }

const shelfMark = "; rhumb secondary, sha256 "

// path is the file of a zone; what cannot stand in a file name is escaped.
func (s shelf) path(zone string) string {
	name := strings.TrimSuffix(zone, ".")
	if name == "" {
		name = "%2E" // the root
	}
	return filepath.Join(s.dir, url.PathEscape(name)+".zone")
}

// kept is a version as it lies on the shelf.
type kept struct {
	text      []byte // nil for none
	listed    Listing
	confirmed time.Time
}

// get returns what is kept of a zone. A file that does not match its digest is an
// error, and no zone.
func (s shelf) get(zone string) (kept, error) {
	b, err := os.ReadFile(s.path(zone))
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, err
	}
	st, err := os.Stat(s.path(zone))
	if err != nil {
		return kept{}, err
	}
	text, listed, err := openShelf(b)
	if err != nil {
		return kept{}, err
	}
	return kept{text, listed, st.ModTime()}, nil
}

// listed returns how a zone is listed that is kept, by the first line of its file
// alone; the zero value where it is not, or nothing is kept.
func (s shelf) listed(zone string) Listing {
	f, err := os.Open(s.path(zone))
	if err != nil {
		return Listing{}
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxHead)).ReadString('\n')
	if err != nil {
		return Listing{}
	}
	_, l := openHead(strings.TrimSuffix(line, "\n"))
	return l
}

// maxHead bounds the first line: a digest, a label, and a name, each octet of the two
// as four or, escaped for the path of a URL, six.
const maxHead = 4096

// head is the first line of a file: the digest, and how the zone is listed where it is.
func head(sum string, l Listing) string {
	if l.Catalog == "" {
		return shelfMark + sum
	}
	return shelfMark + sum + " listed " + url.PathEscape(l.ID) + " " + url.PathEscape(l.Catalog)
}

// openHead reads what head has written; the sum is empty for anything else.
func openHead(line string) (sum string, l Listing) {
	rest, _ := strings.CutPrefix(line, shelfMark)
	sum, listed, _ := strings.Cut(rest, " listed ")
	id, catalog, _ := strings.Cut(listed, " ")
	l.ID, _ = url.PathUnescape(id)
	l.Catalog, _ = url.PathUnescape(catalog)
	if head(sum, l) != line {
		return "", Listing{}
	}
	return sum, l
}

// openShelf takes the first line off.
func openShelf(b []byte) (text []byte, l Listing, err error) {
	line, text, ok := bytes.Cut(b, []byte("\n"))
	sum, l := openHead(string(line))
	if !ok || sum == "" {
		return nil, Listing{}, errors.New("is not a zone that this program has written")
	}
	if sum != digest(text) {
		return nil, Listing{}, fmt.Errorf("%d octets do not match their digest", len(text))
	}
	return text, l, nil
}

// put writes a zone so that a reader, or a crash at any moment, meets the old
// version or the new and nothing between.
func (s shelf) put(zone string, k kept) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.WriteString(head(digest(k.text), k.listed) + "\n")
	if err == nil {
		_, err = f.Write(k.text)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chtimes(f.Name(), k.confirmed, k.confirmed)
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path(zone))
	}
	if err != nil {
		return err
	}
	return syncDir(s.dir)
}

// remove takes a zone off the shelf.
func (s shelf) remove(zone string) error {
	if err := os.Remove(s.path(zone)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// confirm notes that the version on disk still is the newest.
func (s shelf) confirm(zone string, at time.Time) error { return os.Chtimes(s.path(zone), at, at) }

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
