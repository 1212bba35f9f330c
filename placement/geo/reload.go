package geo

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// SourceOptions say which files make the table and how they are watched.
type SourceOptions struct {
	// Paths are the database files, as for Open. None: the embedded table.
	Paths []string
	// Routes are routing tables (MRT) by which clients are grouped, as for
	// OpenRoutes; none: they are not grouped. They are watched as the databases are.
	Routes []string
	// Every is the time between two looks at the files, 30 s if zero. A change is
	// taken up once a file has looked the same twice, since publishers' scripts
	// often write in place.
	Every time.Duration
	// After is how long a change must have stood until it is taken up; zero: two looks.
	// An input-delayed twin waits for as long as its other inputs do.
	After time.Duration
	// OnChange, if set, is called by Run's goroutine with each new table, after
	// Table returns it.
	OnChange func(*Table)
	// Log gets a line for each swap and each refused set of files; nil is silent.
	Log *slog.Logger
}

// Source keeps the table of some files up to date. Table and Status may be called
// from any goroutine; Run belongs to one.
type Source struct {
	opt     SourceOptions
	current atomic.Pointer[Table]
	status  atomic.Pointer[Status]
	settled []stamp   // of the files that were last loaded or refused
	pending []stamp   // as seen at the look before, when different
	since   time.Time // of pending
}

// Status is how the files of a Source fared last.
type Status struct {
	Digest   string    // of the table in use
	Loaded   time.Time // when it came into use
	Fallback bool      // it is the embedded table because the files were never good
	Refused  uint64    // times that changed files could not be used
	Err      error     // why the last change was refused; nil once one is accepted
}

// stamp is what of a file changes when it is replaced.
type stamp struct {
	size int64
	mod  time.Time
	err  string
}

// NewSource loads the files at once. If that fails it falls back to the embedded
// table, says so in Status and log, and Run goes on trying: an answer by country
// is better than none. Only a broken embedded table is an error.
func NewSource(opt SourceOptions) (*Source, error) {
	opt.Every = cmp.Or(opt.Every, 30*time.Second)
	opt.Paths, opt.Routes = slices.Clone(opt.Paths), slices.Clone(opt.Routes)
	opt.Log = cmp.Or(opt.Log, slog.New(slog.DiscardHandler))
	s := &Source{opt: opt}
	s.status.Store(&Status{})
	s.settled = look(opt.files())
	t, err := Load(opt.Paths, opt.Routes)
	if err == nil {
		s.accept(t, false)
		return s, nil
	}
	s.refuse(err)
	if t, err = Default(); err != nil {
		return nil, fmt.Errorf("geo: embedded table: %w", err)
	}
	s.accept(t, true)
	return s, nil
}

// files are all that is watched.
func (o *SourceOptions) files() []string { return slices.Concat(o.Paths, o.Routes) }

// Load compiles the databases, or takes the embedded table where none is named, and
// groups it by the routing tables, if any. Either all of it is good or there is
// an error: a table without its routes would place clients otherwise than on the
// nodes that have them.
func Load(databases, routes []string) (*Table, error) {
	var grouping *Routes
	if len(routes) > 0 {
		var err error
		if grouping, err = OpenRoutes(routes); err != nil {
			return nil, err
		}
	}
	open := Default
	if len(databases) > 0 {
		open = func() (*Table, error) { return Open(databases) }
	}
	t, err := open()
	if err != nil || grouping == nil {
		return t, err
	}
	return t.Grouped(grouping)
}

// Table is the table in use, never nil.
func (s *Source) Table() *Table { return s.current.Load() }

// Status tells how the last change of the files fared.
func (s *Source) Status() Status { return *s.status.Load() }

// Run looks at the files until ctx ends, and returns its error.
func (s *Source) Run(ctx context.Context) error {
	if len(s.opt.files()) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	ticker := time.NewTicker(s.opt.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			s.poll(time.Now())
		}
	}
}

// poll loads the files if they differ from the last ones tried, and have been the
// same for two looks. Each state of the files is tried once.
func (s *Source) poll(now time.Time) {
	seen := look(s.opt.files())
	if slices.Equal(seen, s.settled) {
		s.pending = nil
		return
	}
	if !slices.Equal(seen, s.pending) {
		s.pending, s.since = seen, now
		return
	}
	if now.Sub(s.since) < s.opt.After {
		return
	}
	s.settled, s.pending = seen, nil
	t, err := Load(s.opt.Paths, s.opt.Routes)
	if err != nil {
		s.refuse(err)
		return
	}
	s.accept(t, false)
}

// accept puts a table into use; one of equal content leaves the old one there, so
// that nothing downstream is compiled for nothing.
func (s *Source) accept(t *Table, fallback bool) {
	st := s.Status()
	if !fallback {
		st.Err = nil
	}
	changed := t.Digest() != st.Digest
	if changed {
		st.Digest, st.Loaded = t.Digest(), time.Now()
	}
	st.Fallback = fallback
	s.status.Store(&st)
	if !changed {
		return
	}
	first := s.current.Swap(t) == nil
	s.opt.Log.Info("geo table in use", "name", t.Info().Name, "prefixes", t.Len(),
		"classes", len(t.classes), "digest", t.Digest(), "fallback", fallback)
	if !first && s.opt.OnChange != nil {
		s.opt.OnChange(t)
	}
}

// refuse notes why the files cannot be used; this is the one place that logs it.
func (s *Source) refuse(err error) {
	st := s.Status()
	st.Refused, st.Err = st.Refused+1, err
	s.status.Store(&st)
	s.opt.Log.Error("geo files refused, the table in use stays", "err", err)
}

// look takes the stamps of the files. A missing file has one too, so that it is
// tried, refused and logged once and not at every look.
func look(paths []string) []stamp {
	list := make([]stamp, len(paths))
	for i, path := range paths {
		fi, err := os.Stat(path)
		if err != nil {
			list[i].err = err.Error()
			continue
		}
		list[i] = stamp{size: fi.Size(), mod: fi.ModTime()}
	}
	return list
}
