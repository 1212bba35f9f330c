package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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

// get returns a zone and when it was confirmed; nil where there is none, or one of the
// same name with another ID. A file that does not match its digest is an error, and no
// zone.
func (s shelf) get(zone, id string) ([]byte, time.Time, error) {
	b, err := os.ReadFile(s.path(zone))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	st, err := os.Stat(s.path(zone))
	if err != nil {
		return nil, time.Time{}, err
	}
	text, was, err := openShelf(b)
	if err != nil || was != id {
		return nil, time.Time{}, err
	}
	return text, st.ModTime(), nil
}

// openShelf takes the line with the digest, and the ID where there is one, off.
func openShelf(b []byte) (text []byte, id string, err error) {
	line, text, ok := bytes.Cut(b, []byte("\n"))
	rest, marked := bytes.CutPrefix(line, []byte(shelfMark))
	if !ok || !marked {
		return nil, "", errors.New("is not a zone that this program has written")
	}
	sum, id, _ := strings.Cut(string(rest), " id ")
	if sum != digest(text) {
		return nil, "", fmt.Errorf("%d octets do not match their digest", len(text))
	}
	return text, id, nil
}

// put writes a zone so that a reader, or a crash at any moment, meets the old
// version or the new and nothing between.
func (s shelf) put(zone, id string, text []byte, confirmed time.Time) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	head := shelfMark + digest(text)
	if id != "" {
		head += " id " + id
	}
	_, err = f.WriteString(head + "\n")
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chtimes(f.Name(), confirmed, confirmed)
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path(zone))
	}
	if err != nil {
		return err
	}
	return syncDir(s.dir)
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
