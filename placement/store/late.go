package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"rhumb/placement"
)

// LateInput is what an input-delayed twin will be made of, by value, so that a restart
// of it remembers what is to come.
type LateInput struct {
	At        placement.Time       `json:"at"`
	Inventory *placement.Inventory `json:"inventory"`
	// Planned is the inventory that the plan names, where it is another.
	Planned       *placement.Inventory `json:"planned,omitempty"`
	Plan          *placement.Plan      `json:"plan,omitempty"`
	Votes         []placement.Vote     `json:"votes"`
	VotesRevision int64                `json:"votes_revision"`
	VotesListed   bool                 `json:"votes_listed,omitempty"`
	// Copies are the versions of zones that come from primaries, by name.
	Copies map[string]LateCopy `json:"copies,omitempty"`
}

// LateCopy names a version of a zone; its text lies in the LateDir.
type LateCopy struct {
	SHA256 string `json:"sha256"`
	Serial uint32 `json:"serial"`
}

// Same tells whether two inputs are of the same state.
func (l *LateInput) Same(o *LateInput) bool {
	revision := func(p *placement.Plan) int64 {
		if p == nil {
			return -1
		}
		return p.Revision
	}
	if (l.Inventory == nil) != (o.Inventory == nil) || l.Inventory != nil && l.Inventory.Revision != o.Inventory.Revision {
		return false
	}
	if revision(l.Plan) != revision(o.Plan) || l.VotesRevision != o.VotesRevision || len(l.Copies) != len(o.Copies) {
		return false
	}
	for name, c := range l.Copies {
		if o.Copies[name] != c {
			return false
		}
	}
	return true
}

// LateDir keeps inputs in a directory, a file for each. It belongs to one unit.
type LateDir struct{ dir string }

// NewLateDir returns one; the directory is made by the first Put.
func NewLateDir(dir string) *LateDir { return &LateDir{dir} }

const (
	latePrefix = "input-"
	lateMagic  = "rhumb-late-1 "
	copyPrefix = "copy-"
)

func (d *LateDir) path(at time.Time) string {
	return filepath.Join(d.dir, fmt.Sprintf("%s%020d", latePrefix, at.UnixNano()))
}

// Put writes an input, whole or not at all.
func (d *LateDir) Put(in *LateInput) error {
	body := pack(in)
	if err := writeWhole(d.path(in.At), append([]byte(lateMagic+digest(body)+"\n"), body...)); err != nil {
		return fmt.Errorf("store: keep the input of %s: %w", in.At.Format(time.RFC3339), err)
	}
	return nil
}

// Drop removes an input.
func (d *LateDir) Drop(at time.Time) error {
	if err := os.Remove(d.path(at)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("store: drop an input: %w", err)
	}
	return nil
}

// Load returns all inputs that are whole, oldest first; refused says of the others why not.
// Inventories that are the same are one, as they were when the inputs came: they are large,
// and most inputs differ by their votes.
func (d *LateDir) Load() (all []*LateInput, refused []error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, []error{fmt.Errorf("store: load inputs: %w", err)}
	}
	known := make(map[int64]*placement.Inventory)
	for _, e := range entries { // in order of name, which is that of time
		number, ok := strings.CutPrefix(e.Name(), latePrefix)
		if !ok {
			continue
		}
		in, err := d.read(e.Name())
		if err == nil && strconv.FormatInt(in.At.UnixNano(), 10) != strings.TrimLeft(number, "0") {
			err = errors.New("is of another time than its name")
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("store: load %s: %w", e.Name(), err))
			continue
		}
		in.Inventory, in.Planned = once(known, in.Inventory), once(known, in.Planned)
		all = append(all, in)
	}
	return all, refused
}

// once returns the inventory that is known of a revision in place of an equal one. A store
// that was made anew counts from the beginning, so the revision alone does not tell.
func once(known map[int64]*placement.Inventory, inv *placement.Inventory) *placement.Inventory {
	if inv == nil {
		return nil
	}
	if had := known[inv.Revision]; had != nil && reflect.DeepEqual(had, inv) {
		return had
	}
	known[inv.Revision] = inv
	return inv
}

func (d *LateDir) read(name string) (*LateInput, error) {
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return nil, err
	}
	line, body, ok := bytes.Cut(b, []byte("\n"))
	sum, magic := bytes.CutPrefix(line, []byte(lateMagic))
	if !ok || !magic {
		return nil, errors.New("not an input of this release")
	}
	if digest(body) != string(sum) {
		return nil, errors.New("checksum does not match")
	}
	in, err := unpack[*LateInput](body)
	if err != nil {
		return nil, err
	}
	if in == nil || in.Inventory == nil {
		return nil, errors.New("an input without inventory")
	}
	return in, nil
}

// copies are kept by digest, as zones are.
func (d *LateDir) copies(sha string) string {
	return filepath.Join(d.dir, copyPrefix+filepath.Base(segment(sha)))
}

// PutCopy keeps the text of a version until no input names it any more.
func (d *LateDir) PutCopy(sha string, text []byte) error {
	if _, err := os.Stat(d.copies(sha)); err == nil {
		return nil
	}
	if err := writeWhole(d.copies(sha), text); err != nil {
		return fmt.Errorf("store: keep a copy: %w", err)
	}
	return nil
}

// Copy returns the text of a version, verified.
func (d *LateDir) Copy(sha string) ([]byte, error) {
	b, err := os.ReadFile(d.copies(sha))
	if err == nil && digest(b) != sha {
		err = errors.New("does not match its digest")
	}
	if err != nil {
		return nil, fmt.Errorf("store: copy %.12s: %w", sha, err)
	}
	return b, nil
}

// Tidy removes the texts that none of the inputs names.
func (d *LateDir) Tidy(inputs []*LateInput) error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("store: tidy inputs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		sha, ok := strings.CutPrefix(e.Name(), copyPrefix)
		named := slices.ContainsFunc(inputs, func(in *LateInput) bool {
			for _, c := range in.Copies {
				if c.SHA256 == sha {
					return true
				}
			}
			return false
		})
		if ok && !named {
			errs = append(errs, os.Remove(filepath.Join(d.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
