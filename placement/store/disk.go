package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// keptStates is how many applied states stay on disk.
const keptStates = 3

// State is what a Snapshot was unfolded from, by value: with it, and the class
// table of that digest, a node starts and serves without any store.
type State struct {
	Name       placement.Name       `json:"name"`
	Digest     string               `json:"digest"` // of the Snapshot
	ClassTable string               `json:"class_table"`
	Saved      placement.Time       `json:"saved"`
	Inventory  *placement.Inventory `json:"inventory"`
	Plan       *placement.Plan      `json:"plan"`
	Votes      []placement.Vote     `json:"votes"`
}

// Disk keeps the last applied states in a directory. The units of a machine
// share it: a file's name tells its content, so that it does not matter which
// of them wrote it, or that two did at once. Safe for concurrent use.
type Disk struct {
	dir string
}

// NewDisk returns a Disk; the directory is made by the first Save.
func NewDisk(dir string) *Disk { return &Disk{dir} }

const statePrefix = "snapshot-"

func (s *State) file() string {
	return statePrefix + s.Name.String() + "-" + filepath.Base(segment(s.Digest))
}

// Save writes a state and removes all but the newest three. What it returns
// concerns the next start only: a node goes on serving what it could not save.
func (d *Disk) Save(s *State) error {
	path := filepath.Join(d.dir, s.file())
	if err := writeWhole(path, encodeState(s)); err != nil {
		return fmt.Errorf("store: save %s: %w", s.file(), err)
	}
	names, err := d.names()
	if err != nil {
		return fmt.Errorf("store: save %s: %w", s.file(), err)
	}
	for _, n := range names[min(keptStates, len(names)):] {
		// Another unit may have removed it just now.
		if err := os.Remove(filepath.Join(d.dir, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("store: remove old state: %w", err)
		}
	}
	return nil
}

// Load returns the newest state that is whole; nil where there is none. refused
// says of each newer one why it was not taken.
func (d *Disk) Load() (s *State, refused []error) {
	for range maxTries {
		names, err := d.names()
		if err != nil {
			return nil, []error{fmt.Errorf("store: load states: %w", err)}
		}
		var vanished bool
		if s, refused, vanished = d.loadFirst(names); s != nil || !vanished && len(names) > 0 {
			break
		}
		// Other units have put newer states in place of all that was listed, or did so
		// while it was: a listing may then miss the old ones and the new ones.
	}
	return s, refused
}

func (d *Disk) loadFirst(names []string) (s *State, refused []error, vanished bool) {
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(d.dir, n))
		if errors.Is(err, os.ErrNotExist) {
			vanished = true
			continue
		}
		if err == nil {
			s, err = decodeState(b)
		}
		if err == nil && s.file() != n {
			err = fmt.Errorf("holds %s", s.file())
		}
		if err == nil {
			return s, refused, false
		}
		refused = append(refused, fmt.Errorf("store: load %s: %w", n, err))
	}
	return nil, refused, vanished
}

// names lists the state files, newest first: by time of writing, and by name
// where that is equal, so that all units agree. Leftovers of a crash go.
func (d *Disk) names() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type written struct {
		name string
		at   time.Time
	}
	var all []written
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed since
		}
		switch name := e.Name(); {
		case strings.HasPrefix(name, statePrefix):
			all = append(all, written{name, info.ModTime()})
		case strings.HasPrefix(name, ".tmp-") && time.Since(info.ModTime()) > time.Hour:
			os.Remove(filepath.Join(d.dir, name))
		}
	}
	slices.SortFunc(all, func(a, b written) int {
		if c := b.at.Compare(a.at); c != 0 {
			return c
		}
		return strings.Compare(b.name, a.name)
	})
	out := make([]string, len(all))
	for i, w := range all {
		out[i] = w.name
	}
	return out, nil
}

// stateMagic begins a state file; the digest of all that follows the first
// line comes behind it.
const stateMagic = "rhumb-state-1 "

func encodeState(s *State) []byte {
	body := pack(s)
	return append([]byte(stateMagic+digest(body)+"\n"), body...)
}

// decodeState reads a state file, whole or not at all.
func decodeState(b []byte) (*State, error) {
	line, body, ok := bytes.Cut(b, []byte("\n"))
	sum, magic := bytes.CutPrefix(line, []byte(stateMagic))
	if !ok || !magic {
		return nil, errors.New("not a state file of this release")
	}
	if digest(body) != string(sum) {
		return nil, errors.New("checksum does not match")
	}
	s, err := unpack[*State](body)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Inventory == nil || s.Plan == nil {
		return nil, errors.New("a state without inventory or plan")
	}
	return s, nil
}
