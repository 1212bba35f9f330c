package geo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// put copies a database over path. The time stamp is the bubble's, so that two
// files written within a tick of the real clock still differ.
func put(t *testing.T, path, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, path, data)
}

func writeAt(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
}

const (
	cityFile    = "testdata/GeoIP2-City-Test.mmdb"
	countryFile = "testdata/GeoIP2-Country-Test.mmdb"
)

// watch runs a Source inside a bubble and hands it to a test, with the tables it
// announces. log may be nil.
func watch(t *testing.T, log io.Writer, paths []string, do func(s *Source, changed <-chan *Table)) {
	t.Helper()
	watchAll(t, log, SourceOptions{Paths: paths}, do)
}

func watchAll(t *testing.T, log io.Writer, opt SourceOptions, do func(s *Source, changed <-chan *Table)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		changed := make(chan *Table, 10)
		opt.Every, opt.OnChange = 10*time.Second, func(t *Table) { changed <- t }
		if log != nil {
			opt.Log = slog.New(slog.NewTextHandler(log, nil))
		}
		s, err := NewSource(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		do(s, changed)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// looks lets n looks at the files pass.
func looks(n int) {
	time.Sleep(time.Duration(n) * 10 * time.Second) // of the bubble's clock
	synctest.Wait()
}

func TestSourceSwapsSettledContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "geo.mmdb")
	put(t, path, cityFile)
	watch(t, nil, []string{path}, func(s *Source, changed <-chan *Table) {
		city := s.Table()
		looks(2)
		put(t, path, countryFile)
		looks(1)
		if s.Table() != city {
			t.Error("taken up at the first look: the file may still be written")
		}
		looks(1)
		got := s.Table()
		if got == city || s.Status().Digest != got.Digest() || len(changed) != 1 || <-changed != got {
			t.Errorf("not swapped and announced once: status %+v", s.Status())
		}
		put(t, path, countryFile) // touched, same content
		looks(3)
		if s.Table() != got || len(changed) != 0 {
			t.Error("equal content was swapped in")
		}
	})
}

func TestSourceKeepsTheOldOnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "geo.mmdb")
	put(t, path, cityFile)
	var log bytes.Buffer
	watch(t, &log, []string{path}, func(s *Source, changed <-chan *Table) {
		city := s.Table()
		writeAt(t, path, []byte("cut short"))
		looks(5)
		if st := s.Status(); s.Table() != city || st.Err == nil || st.Refused != 1 || len(changed) != 0 {
			t.Errorf("status %+v, want the old table and one refusal", st)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		looks(5)
		if st := s.Status(); s.Table() != city || st.Refused != 2 {
			t.Errorf("file gone: status %+v, want the old table and two refusals", st)
		}
		put(t, path, countryFile)
		looks(3)
		if st := s.Status(); s.Table() == city || st.Err != nil {
			t.Errorf("file mended: status %+v", st)
		}
	})
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
		t.Errorf("%d error lines, want one for each refused state:\n%s", n, &log)
	}
}

func TestSourceFallsBackAndRecovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "late.mmdb")
	watch(t, nil, []string{path}, func(s *Source, changed <-chan *Table) {
		if st := s.Status(); !st.Fallback || st.Err == nil || s.Table().Len() < 300_000 {
			t.Errorf("status %+v, want the embedded table and the reason", st)
		}
		put(t, path, cityFile)
		looks(3)
		if st := s.Status(); st.Fallback || st.Err != nil || len(changed) != 1 {
			t.Errorf("status %+v, want the file's table", st)
		}
	})
}

func TestSourceWithoutFiles(t *testing.T) {
	watch(t, nil, nil, func(s *Source, _ <-chan *Table) {
		if st := s.Status(); st.Fallback || st.Err != nil || s.Table() == nil {
			t.Errorf("status %+v, want the embedded table as chosen", st)
		}
	})
}
