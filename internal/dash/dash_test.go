package dash

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, path, tag string) *httptest.ResponseRecorder {
	t.Helper()
	handler := Handler()
	r := httptest.NewRequest("GET", "http://localhost"+path, nil)
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestPageAndFiles(t *testing.T) {
	for path, want := range map[string]string{"/": "text/html", "/main.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml"} {
		w := get(t, path, "")
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), want) || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
		if again := get(t, path, w.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%s again: %d", path, again.Code)
		}
	}
	for _, path := range []string{"/nothing", "/../dash.go", "/assets/main.js"} {
		if w := get(t, path, ""); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// TestEverythingNamedExists follows imports and links: a page with a missing
// module is a blank page.
func TestEverythingNamedExists(t *testing.T) {
	names := regexp.MustCompile(`(?:from '\./|href="/|src="/)([\w.-]+)['"]`)
	files, err := filepath.Glob("assets/*")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range names.FindAllStringSubmatch(string(body), -1) {
			seen++
			if w := get(t, "/"+m[1], ""); w.Code != 200 {
				t.Errorf("%s names %s, which is not there", f, m[1])
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d names found; the pattern fits no more", seen)
	}
}

// TestThePolicyHolds: no inline script or style, no HTML from text, nothing
// from elsewhere.
func TestThePolicyHolds(t *testing.T) {
	bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function| style=|<style|<script>|javascript:|\son(?:click|load|error)=|https?://`)
	files, err := filepath.Glob("assets/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", "")
		if m := bad.FindString(text); m != "" {
			t.Errorf("%s has %q", f, m)
		}
	}
}
