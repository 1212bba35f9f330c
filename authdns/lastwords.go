package authdns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process that ends itself says why; one that is killed says nothing. What it says
// goes to a file of its own, locked for as long as it lives, whose name its black boxes
// bear: so the next process knows which of them tell of a query that did harm, and which
// only of one that was at hand when somebody, or a machine short of memory, killed it.
const (
	wordsPrefix = "crash-"
	// lastWords is the newest of those files that is not empty, for whoever looks later.
	lastWords = "crash.txt"
	// killsForCrash is how many ends without a word weigh as much as one with words.
	killsForCrash = 3
)

// CrashOutput is where the runtime is to write what it says when it ends this process
// (runtime/debug.SetCrashOutput), nil where none is kept. It stays open.
func (s *Server) CrashOutput() *os.File { return s.shield.words }

// lastCrash is when a process of this directory last ended itself; zero where none did.
func lastCrash(dir string) time.Time {
	fi, err := os.Stat(filepath.Join(dir, lastWords))
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime().UTC()
}

// Crashed is when a process of this name server last ended itself; zero: never.
func (s *Server) Crashed() time.Time { return s.shield.crashed }

// openWords makes the file of this process.
func (s *Server) openWords(dir string) error {
	f, err := os.CreateTemp(dir, wordsPrefix)
	if err == nil {
		if err = lockBox(f); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("the words of a crash: %w", err)
	}
	s.shield.words = f
	return nil
}

// life is what the names of a process's files have in common; empty where it is not known.
func (s *Server) life() string {
	if s.shield.words == nil {
		return ""
	}
	return strings.TrimPrefix(filepath.Base(s.shield.words.Name()), wordsPrefix)
}

// takeWords removes what processes that have ended left to say, and returns, for each
// life, whether that was anything.
func (s *Server) takeWords(dir string, entries []fs.DirEntry) (spoke map[string]bool, err error) {
	spoke = make(map[string]bool)
	for _, e := range entries {
		life, ok := strings.CutPrefix(e.Name(), wordsPrefix)
		if !ok {
			continue
		}
		words, gone, err := takeWordsOf(dir, e.Name())
		if err != nil {
			return spoke, err
		}
		if !gone {
			continue
		}
		if spoke[life] = len(words) > 0; spoke[life] {
			first, _, _ := bytes.Cut(words, []byte("\n"))
			s.log.Error("the last process ended itself", "words", string(first), "file", filepath.Join(dir, lastWords))
		}
	}
	return spoke, nil
}

// takeWordsOf reads and removes one file, unless its process lives.
func takeWordsOf(dir, name string) (words []byte, gone bool, err error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil // somebody else took it
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if err := lockBox(f); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, false, nil
	}
	if words, err = os.ReadFile(path); err == nil && len(words) > 0 {
		return words, true, os.Rename(path, filepath.Join(dir, lastWords))
	}
	return nil, true, errors.Join(err, os.Remove(path))
}
