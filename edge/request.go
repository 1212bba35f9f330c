package edge

import (
	"bytes"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Limits of a request. What exceeds them is answered and the connection ends.
const (
	maxRequest = 16 << 10 // bytes of request line and header fields
	maxFields  = 100
)

// request is what of an HTTP/1.1 request (RFC 9112) decides its answer.
type request struct {
	method      string
	name        string // cleaned absolute path
	http10      bool
	close       bool // the client asks for the end, or the request is broken
	keepAlive   bool // an HTTP/1.0 client asks for more
	rangeSpec   string
	ifRange     string
	ifMatch     string
	ifNoneMatch string
	status      int  // not 0: the answer is this error
	puts        bool // the service takes uploads
	content     putContent
}

// putContent is what a PUT says of what follows it.
type putContent struct {
	sized   bool
	length  int64
	chunked bool
	part    bool // Content-Range: it is not the whole object
	expect  bool // the client waits to hear that it may send
}

// parseRequest reads one request off b. n is its length; 0 means that b holds
// no whole one yet. A broken request has a status and ends the connection,
// since nobody knows where the next one starts.
func parseRequest(b []byte) (req request, n int) {
	// RFC 9112 section 2.2: a client may send empty lines before the request.
	skip := 0
	for skip < len(b) && (b[skip] == '\r' || b[skip] == '\n') {
		skip++
	}
	end := bytes.Index(b[skip:], []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxRequest {
			return request{status: http.StatusRequestHeaderFieldsTooLarge, close: true}, len(b)
		}
		return request{}, 0
	}
	n = skip + end + 4
	if n > maxRequest {
		return request{status: http.StatusRequestHeaderFieldsTooLarge, close: true}, n
	}
	line, rest, _ := strings.Cut(string(b[skip:skip+end]), "\r\n")
	req.requestLine(line)
	if req.status == 0 {
		req.fields(rest)
	}
	req.close = req.close || req.status != 0
	if req.status == 0 && req.method != http.MethodGet && req.method != http.MethodHead && req.method != http.MethodPut {
		req.status = http.StatusMethodNotAllowed
	}
	return req, n
}

// requestLine reads method, target and version (RFC 9112 section 3).
func (r *request) requestLine(line string) {
	method, rest, _ := strings.Cut(line, " ")
	target, version, whole := strings.Cut(rest, " ")
	if !whole || strings.Contains(version, " ") || !isToken(method) {
		r.status = http.StatusBadRequest
		return
	}
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		r.http10 = true
	default:
		r.status = http.StatusHTTPVersionNotSupported
		if !strings.HasPrefix(version, "HTTP/") {
			r.status = http.StatusBadRequest
		}
		return
	}
	r.method = method
	p, ok := pathOf(target)
	if ok {
		r.name, ok = nameOf(p)
	}
	if !ok {
		r.status = http.StatusBadRequest
	}
}

// pathOf is the path of a request target, decoded. Most are what they stand for.
func pathOf(target string) (string, bool) {
	if strings.HasPrefix(target, "/") && strings.Trim(target, pathChars) == "" {
		return target, true
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return "", false
	}
	return u.Path, true
}

// pathChars stand for themselves in a path (RFC 3986 section 3.3) and end none.
const pathChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~"

// nameOf is the object that a path asks for, false if it cannot be one.
func nameOf(p string) (string, bool) {
	if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
		return "", false
	}
	if name := path.Clean(p); !strings.HasSuffix(p, "/") {
		return name, true
	}
	return path.Join(path.Clean(p), "index.html"), true
}

// fields reads the header section. Folded lines, blanks before the colon and
// control characters are refused (RFC 9112 section 5): they are how requests
// are smuggled.
func (r *request) fields(section string) {
	if strings.Count(section, "\r\n") >= maxFields {
		r.status = http.StatusRequestHeaderFieldsTooLarge
		return
	}
	hosts := 0
	for more := section != ""; more; {
		var line string
		line, section, more = strings.Cut(section, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || strings.ContainsAny(value, "\x00\r\n") {
			r.status = http.StatusBadRequest
			return
		}
		name, value = strings.ToLower(name), strings.Trim(value, " \t")
		if name == "host" {
			hosts++
		}
		r.field(name, value)
	}
	// RFC 9112 section 3.2: exactly one Host in HTTP/1.1.
	if r.status == 0 && (hosts > 1 || hosts == 0 && !r.http10) {
		r.status = http.StatusBadRequest
	}
	if r.http10 && !r.keepAlive {
		r.close = true
	}
}

func (r *request) field(name, value string) {
	if r.method == http.MethodPut && r.putField(name, value) {
		return
	}
	switch name {
	case "connection":
		for opt := range strings.SplitSeq(strings.ToLower(value), ",") {
			switch strings.TrimSpace(opt) {
			case "close":
				r.close = true
			case "keep-alive":
				r.keepAlive = r.http10
			}
		}
	case "transfer-encoding":
		r.status = http.StatusBadRequest // no request of ours has content
	case "content-length":
		if n, err := strconv.ParseUint(value, 10, 63); err != nil || n != 0 {
			r.status = http.StatusBadRequest
		}
	case "range":
		r.rangeSpec = value
	case "if-range":
		r.ifRange = value
	case "if-match":
		r.ifMatch = value
	case "if-none-match":
		r.ifNoneMatch = value
	}
}

// putField reads what describes the content of a PUT. Two lengths, or a length and
// chunks, are refused (RFC 9112 section 6.3).
func (r *request) putField(name, value string) bool {
	c := &r.content
	switch name {
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || c.chunked || c.sized && int64(n) != c.length {
			r.status = http.StatusBadRequest
		}
		c.sized, c.length = true, int64(n)
	case "transfer-encoding":
		if c.sized || c.chunked || !strings.EqualFold(value, "chunked") {
			r.status = http.StatusBadRequest
		}
		c.chunked = true
	case "content-range":
		c.part = true
	case "expect":
		if c.expect = strings.EqualFold(value, "100-continue"); !c.expect {
			r.status = http.StatusExpectationFailed
		}
	default:
		return false
	}
	return true
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for _, c := range []byte(s) {
		alnum := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}

// parseRange reads a single byte range (RFC 9110 section 14.1.2) of an object
// of size bytes. ok is false if the field is to be ignored: another unit,
// several ranges, a broken one. An unsatisfiable one is ok with length -1.
func parseRange(spec string, size int64) (start, length int64, ok bool) {
	set, found := strings.CutPrefix(spec, "bytes=")
	first, last, dash := strings.Cut(set, "-")
	if !found || !dash || strings.Contains(set, ",") {
		return 0, 0, false
	}
	if first == "" {
		n, err := strconv.ParseUint(last, 10, 63)
		switch {
		case err != nil:
			return 0, 0, false
		case n == 0 || size == 0:
			return 0, -1, true
		}
		n = min(n, uint64(size))
		return size - int64(n), int64(n), true
	}
	a, err := strconv.ParseUint(first, 10, 63)
	if err != nil {
		return 0, 0, false
	}
	z := uint64(max(size-1, 0))
	if last != "" {
		if z, err = strconv.ParseUint(last, 10, 63); err != nil || z < a {
			return 0, 0, false
		}
	}
	if a >= uint64(size) {
		return 0, -1, true
	}
	z = min(z, uint64(size-1))
	return int64(a), int64(z-a) + 1, true
}
