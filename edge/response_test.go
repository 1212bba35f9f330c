package edge

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhumb/edge/content"
	"rhumb/edge/frame"
	"rhumb/edge/upload"
)

var discard = slog.New(slog.DiscardHandler)

// lib makes a library with one file in a directory of its own.
func lib(t *testing.T, name string, b []byte) *content.Library {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := content.NewLibrary(dir, content.NewCache(4<<20), upload.Hidden, discard)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func parse(t *testing.T, raw string) request {
	t.Helper()
	req, n := parseRequest([]byte(raw))
	if n == 0 {
		t.Fatalf("%q is not whole", raw)
	}
	return req
}

func wireOf(t *testing.T, l *content.Library, raw string, now time.Time) (wire, frame.Record) {
	t.Helper()
	req := parse(t, raw)
	e := l.Lookup(t.Context(), req.name)
	rec := answer(req, e, now)
	w, err := newWire(rec, e.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w, rec
}

// TestDate compares with the standard library's format, until 2106.
func TestDate(t *testing.T) {
	for second := uint32(1); second < 1<<32-90000; second += 86399*7 + 61 {
		want := time.Unix(int64(second), 0).UTC().Format(http.TimeFormat)
		if got := string(appendDate(nil, second)); got != want {
			t.Fatalf("%d: %q, want %q", second, got, want)
		}
	}
}

// TestAnswer reads our bytes with the standard library's client side.
func TestAnswer(t *testing.T) {
	content := random(2<<20 + 77)
	l := lib(t, "a.mp4", content)
	tag := etag(l.Lookup(t.Context(), "/a.mp4").Hash)
	for _, tc := range []struct {
		name, method, path, fields string
		status                     int
		body                       []byte
		header                     map[string]string
	}{
		{"200", "GET", "/a.mp4", "", 200, content, map[string]string{"Etag": tag, "Content-Type": "video/mp4", "Accept-Ranges": "bytes"}},
		{"HEAD has no body", "HEAD", "/a.mp4", "", 200, nil, map[string]string{"Content-Length": "2097229", "Etag": tag}},
		{"404", "GET", "/b", "", 404, []byte("Not Found\n"), nil},
		{"HEAD of 404", "HEAD", "/b", "", 404, nil, nil},
		{"405", "DELETE", "/a.mp4", "", 405, []byte("Method Not Allowed\n"), map[string]string{"Allow": "GET, HEAD"}},
		{"RFC 9110 15.3.7", "GET", "/a.mp4", "Range: bytes=1048570-1048585\r\n", 206, content[1048570:1048586], map[string]string{"Content-Range": "bytes 1048570-1048585/2097229"}},
		{"RFC 9110 15.5.17", "GET", "/a.mp4", "Range: bytes=9999999-\r\n", 416, []byte("Requested Range Not Satisfiable\n"), map[string]string{"Content-Range": "bytes */2097229"}},
		{"several ranges are ignored", "GET", "/a.mp4", "Range: bytes=0-1,4-5\r\n", 200, content, nil},
		{"RFC 9110 14.2: Range of HEAD is ignored", "HEAD", "/a.mp4", "Range: bytes=0-1\r\n", 200, nil, nil},
		{"If-Range holds", "GET", "/a.mp4", "Range: bytes=0-3\r\nIf-Range: " + tag + "\r\n", 206, content[:4], nil},
		{"If-Range fails", "GET", "/a.mp4", "Range: bytes=0-3\r\nIf-Range: \"old\"\r\n", 200, content, nil},
		{"RFC 9110 13.1.5: If-Range by a weak tag fails", "GET", "/a.mp4", "Range: bytes=0-3\r\nIf-Range: W/" + tag + "\r\n", 200, content, nil},
		{"If-None-Match", "GET", "/a.mp4", "If-None-Match: \"x\", W/" + tag + "\r\n", 304, nil, map[string]string{"Etag": tag}},
		{"If-None-Match *", "GET", "/a.mp4", "If-None-Match: *\r\n", 304, nil, nil},
		{"If-Match fails", "GET", "/a.mp4", "If-Match: \"x\"\r\n", 412, []byte("Precondition Failed\n"), nil},
		{"If-Match by a weak tag fails", "GET", "/a.mp4", "If-Match: W/" + tag + "\r\n", 412, []byte("Precondition Failed\n"), nil},
	} {
		w, _ := wireOf(t, l, tc.method+" "+tc.path+" HTTP/1.1\r\nHost: x\r\n"+tc.fields+"\r\n", time.Unix(1700000000, 0))
		resp, err := http.ReadResponse(bufio.NewReader(w.reader(0)), &http.Request{Method: tc.method})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != tc.status || !bytes.Equal(body, tc.body) {
			t.Errorf("%s: status %d, %d bytes, %v; want %d, %d bytes", tc.name, resp.StatusCode, len(body), err, tc.status, len(tc.body))
		}
		for k, v := range tc.header {
			if resp.Header.Get(k) != v {
				t.Errorf("%s: %s is %q, want %q", tc.name, k, resp.Header.Get(k), v)
			}
		}
		if d := resp.Header.Get("Date"); d != "Tue, 14 Nov 2023 22:13:20 GMT" {
			t.Errorf("%s: Date %q", tc.name, d)
		}
	}
}

// TestWireElsewhere: another site with the same content, knowing only the
// record as it travels, makes the same bytes at every offset.
func TestWireElsewhere(t *testing.T) {
	content := random(3<<20 + 5)
	here := lib(t, "a.mp4", content)
	there := lib(t, "renamed.mp4", content)
	there.Ahead("/renamed.mp4")
	for _, fields := range []string{"", "Range: bytes=1000000-2200000\r\n", "Connection: close\r\n", "If-None-Match: *\r\n"} {
		for _, method := range []string{"GET", "HEAD"} {
			w, rec := wireOf(t, here, method+" /a.mp4 HTTP/1.1\r\nHost: x\r\n"+fields+"\r\n", time.Now())
			rec.Key = testKey(1)
			carried, err := frame.DecodeRecord(frame.AppendRecord(nil, rec))
			if err != nil {
				t.Fatal(err)
			}
			obj, ok := there.ByHash(carried.Object, "/a.mp4")
			if !ok {
				t.Fatal("object not found by hash")
			}
			other, err := newWire(carried, obj)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := io.ReadAll(w.reader(0))
			for range 50 {
				off := rand.Int64N(w.size() + 1)
				got, err := io.ReadAll(other.reader(off))
				if err != nil || !bytes.Equal(got, want[off:]) {
					t.Fatalf("%s %q at %d: %d bytes, want %d, %v", method, fields, off, len(got), len(want)-int(off), err)
				}
			}
		}
	}
}

func TestHeadRefuses(t *testing.T) {
	for _, rec := range []frame.Record{{Template: template + 1, Status: 200}, {Template: templatePuts, Status: 404}, {Template: template, Status: 200, Media: 999}, {Template: template, Status: 999}} {
		if _, err := head(rec); !errors.Is(err, errTemplate) {
			t.Errorf("%+v: %v", rec, err)
		}
	}
}

// TestTemplate pins the bytes: whoever changes them must change the version.
func TestTemplate(t *testing.T) {
	rec := frame.Record{Template: 1, Status: 206, Media: 14, Size: 100, Start: 10, Length: 5, Date: 1700000000, Flags: frame.Close}
	got, err := head(rec)
	want := "HTTP/1.1 206 Partial Content\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nContent-Type: video/mp4\r\nContent-Length: 5\r\n" +
		"Accept-Ranges: bytes\r\nContent-Range: bytes 10-14/100\r\nETag: \"" + strings.Repeat("0", 64) + "\"\r\nConnection: close\r\n\r\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	for version, allow := range map[uint8]string{1: "GET, HEAD", 2: "GET, HEAD, PUT"} {
		rec := frame.Record{Template: version, Status: 405, Date: 1700000000, Flags: frame.Close | frame.Head}
		got, err := head(rec)
		want := "HTTP/1.1 405 Method Not Allowed\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nAllow: " + allow +
			"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 19\r\nConnection: close\r\n\r\n"
		if err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
}
