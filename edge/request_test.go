package edge

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	const host = "Host: video.test\r\n"
	for _, tc := range []struct {
		name, in string
		want     request
	}{
		{"GET", "GET /a.mp4 HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", name: "/a.mp4"}},
		{"HEAD", "HEAD /a HTTP/1.1\r\n" + host + "\r\n", request{method: "HEAD", name: "/a"}},
		{"RFC 9112 2.2: empty lines before", "\r\n\r\nGET /a HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", name: "/a"}},
		{"directory", "GET /d/ HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", name: "/d/index.html"}},
		{"root", "GET / HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", name: "/index.html"}},
		{"dots stay inside", "GET /../../etc/passwd HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", name: "/etc/passwd"}},
		{"encoded dots too", "GET /%2e%2e/%2e%2e/x HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", name: "/x"}},
		{"RFC 9112 3.2.2: absolute form", "GET http://video.test/a?q=1 HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", name: "/a"}},
		{"close", "GET /a HTTP/1.1\r\n" + host + "Connection: Close\r\n\r\n", request{method: "GET", name: "/a", close: true}},
		{"HTTP/1.0 closes", "GET /a HTTP/1.0\r\n\r\n", request{method: "GET", name: "/a", http10: true, close: true}},
		{"HTTP/1.0 keep-alive", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", request{method: "GET", name: "/a", http10: true, keepAlive: true}},
		{"conditions", "GET /a HTTP/1.1\r\n" + host + "range: bytes=1-2\r\nIF-RANGE: \"x\"\r\nIf-None-Match: \"y\"\r\nIf-Match: *\r\n\r\n",
			request{method: "GET", name: "/a", rangeSpec: "bytes=1-2", ifRange: `"x"`, ifNoneMatch: `"y"`, ifMatch: "*"}},
		{"empty content", "GET /a HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n", request{method: "GET", name: "/a"}},

		{"RFC 9110 15.5.6: method", "POST /a HTTP/1.1\r\n" + host + "\r\n", request{method: "POST", name: "/a", status: 405}},
		{"RFC 9112 3.2: no Host", "GET /a HTTP/1.1\r\n\r\n", request{method: "GET", name: "/a", status: 400, close: true}},
		{"two Hosts", "GET /a HTTP/1.1\r\n" + host + host + "\r\n", request{method: "GET", name: "/a", status: 400, close: true}},
		{"version", "GET /a HTTP/2.0\r\n" + host + "\r\n", request{status: 505, close: true}},
		{"no HTTP", "hello\r\n\r\n", request{status: 400, close: true}},
		{"two blanks", "GET  /a HTTP/1.1\r\n" + host + "\r\n", request{status: 400, close: true}},
		{"relative target", "GET a HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", status: 400, close: true}},
		{"NUL in the target", "GET /a%00b HTTP/1.1\r\n" + host + "\r\n", request{method: "GET", status: 400, close: true}},
		{"RFC 9112 5.1: blank before the colon", "GET /a HTTP/1.1\r\nHost : x\r\n\r\n", request{method: "GET", name: "/a", status: 400, close: true}},
		{"RFC 9112 5.2: folded line", "GET /a HTTP/1.1\r\n" + host + " more\r\n\r\n", request{method: "GET", name: "/a", status: 400, close: true}},
		{"bare CR in a value", "GET /a HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", request{method: "GET", name: "/a", status: 400, close: true}},
		{"content", "GET /a HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\n", request{method: "GET", name: "/a", status: 400, close: true}},
		{"chunked", "GET /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", request{method: "GET", name: "/a", status: 400, close: true}},
		{"too many fields", "GET /a HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", maxFields) + "\r\n", request{method: "GET", name: "/a", status: 431, close: true}},
		{"too long", "GET /" + strings.Repeat("a", maxRequest) + " HTTP/1.1\r\n" + host + "\r\n", request{status: 431, close: true}},
	} {
		got, n := parseRequest([]byte(tc.in + "GET /next"))
		if got != tc.want || n != len(tc.in) {
			t.Errorf("%s: %+v, %d of %d bytes", tc.name, got, n, len(tc.in))
		}
		if _, n := parseRequest([]byte(tc.in[:len(tc.in)-1])); n != 0 && len(tc.in) <= maxRequest {
			t.Errorf("%s: parsed without its last byte", tc.name)
		}
	}
}

// TestPathOf: what is taken as it is would be parsed to the same.
func TestPathOf(t *testing.T) {
	for _, target := range []string{"/a.mp4", "/", "/a/b-c_d~e/1", "//host/a", "/a//b", "/a?q", "/a%41", "/a#b", "/a;b", "/a:b", "/\x7f", "a", "", "*", "http://h/a", "/\xc3\xa9"} {
		want, known := "", false
		if u, err := url.ParseRequestURI(target); err == nil {
			want, known = u.Path, true
		}
		if got, ok := pathOf(target); got != want || ok != known {
			t.Errorf("%q: %q, %v, want %q, %v", target, got, ok, want, known)
		}
	}
}

func TestParseRange(t *testing.T) {
	for _, tc := range []struct {
		spec          string
		size          int64
		start, length int64
		ok            bool
	}{
		{"bytes=0-0", 10, 0, 1, true},
		{"bytes=2-5", 10, 2, 4, true},
		{"bytes=2-", 10, 2, 8, true},
		{"bytes=2-99", 10, 2, 8, true},
		{"bytes=-3", 10, 7, 3, true},
		{"bytes=-99", 10, 0, 10, true},
		{"bytes=10-", 10, 0, -1, true},
		{"bytes=-0", 10, 0, -1, true},
		{"bytes=0-", 0, 0, -1, true},
		{"bytes=-1", 0, 0, -1, true},
		{"bytes=5-2", 10, 0, 0, false},
		{"bytes=0-1,3-4", 10, 0, 0, false},
		{"bytes=x-1", 10, 0, 0, false},
		{"bytes=+1-2", 10, 0, 0, false},
		{"bytes=1", 10, 0, 0, false},
		{"bytes=-", 10, 0, 0, false},
		{"items=0-1", 10, 0, 0, false},
		{"bytes=99999999999999999999-", 10, 0, 0, false},
	} {
		start, length, ok := parseRange(tc.spec, tc.size)
		if start != tc.start || length != tc.length || ok != tc.ok {
			t.Errorf("RFC 9110 14.1.2, %s of %d: %d+%d %t", tc.spec, tc.size, start, length, ok)
		}
	}
}

// FuzzParseRequest: no input panics, a parsed length lies inside the input,
// and names never leave the root.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("GET /a HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\r\n\r\n"))
	f.Add([]byte("\r\nHEAD /%2e%2e/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET"))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, n := parseRequest(b)
		if n < 0 || n > len(b) {
			t.Fatalf("length %d of %d", n, len(b))
		}
		if req.status == 0 && n > 0 && (!strings.HasPrefix(req.name, "/") || strings.Contains(req.name+"/", "/../")) {
			t.Fatalf("name %q", req.name)
		}
		if start, length, ok := parseRange(req.rangeSpec, 1000); ok && length >= 0 && (start < 0 || length == 0 || start+length > 1000) {
			t.Fatalf("range %q is %d+%d of 1000", req.rangeSpec, start, length)
		}
	})
}
