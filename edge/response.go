package edge

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"rhumb/edge/content"
	"rhumb/edge/frame"
	"rhumb/edge/seal"
	"rhumb/edge/upload"
)

// template is the version of the response head below. Its bytes are part of
// what a session that moves must go on with, so any change of them, of the
// media table or of an error text is a new version; a site refuses sessions
// with a version it does not know.
const template = 1

// templatePuts is the version of one head: that of status 405 from a service which takes
// uploads, and says so (RFC 9110 section 10.2.1).
const templatePuts = 2

// heads tells whether the head of a record is known here.
func heads(rec *frame.Record) bool {
	return rec.Template == template || rec.Template == templatePuts && rec.Status == http.StatusMethodNotAllowed
}

// media maps a name's extension to the content types of template 1. Only
// append: a record carries the index.
var media = [...]struct{ ext, typ string }{
	{"", "application/octet-stream"}, {".html", "text/html; charset=utf-8"}, {".txt", "text/plain; charset=utf-8"},
	{".css", "text/css; charset=utf-8"}, {".js", "text/javascript; charset=utf-8"}, {".json", "application/json"},
	{".xml", "application/xml"}, {".svg", "image/svg+xml"}, {".png", "image/png"}, {".jpg", "image/jpeg"},
	{".gif", "image/gif"}, {".webp", "image/webp"}, {".avif", "image/avif"}, {".ico", "image/vnd.microsoft.icon"},
	{".mp4", "video/mp4"}, {".m4s", "video/iso.segment"}, {".ts", "video/mp2t"}, {".webm", "video/webm"},
	{".m3u8", "application/vnd.apple.mpegurl"}, {".mpd", "application/dash+xml"}, {".mp3", "audio/mpeg"},
	{".wasm", "application/wasm"}, {".pdf", "application/pdf"}, {".gz", "application/gzip"}, {".zip", "application/zip"},
	{".woff2", "font/woff2"},
}

func mediaOf(name string) uint16 {
	ext := strings.ToLower(path.Ext(name))
	for i := range media {
		if media[i].ext == ext {
			return uint16(i)
		}
	}
	return 0
}

// answer decides what a request gets: GET and HEAD with conditions and one
// range (RFC 9110 sections 13 and 14). It is pure; the fields it sets in the
// record are all that the bytes of the response depend on.
func answer(req request, e content.Entry, now time.Time) frame.Record {
	rec := frame.Record{Template: template, Date: uint32(now.Unix()), Media: mediaOf(req.name)}
	if req.close {
		rec.Flags |= frame.Close
	} else if req.http10 {
		rec.Flags |= frame.KeepAlive10
	}
	if req.method == http.MethodHead {
		rec.Flags |= frame.Head
	}
	switch {
	case req.status != 0:
		if rec.Status = uint16(req.status); req.puts && req.status == http.StatusMethodNotAllowed {
			rec.Template = templatePuts
		}
		return rec
	case e.Status != 0:
		rec.Status = uint16(e.Status)
		return rec
	}
	rec.Object, rec.Size = e.Hash, uint64(e.Size)
	rec.Status, rec.Length = http.StatusOK, uint64(e.Size)
	tag := ""
	if e.Known {
		tag = etag(e.Hash)
	} else {
		rec.Flags |= frame.Pinned
	}
	conditions(&rec, req, tag)
	return rec
}

func conditions(rec *frame.Record, req request, tag string) {
	switch {
	case req.ifMatch != "" && !upload.Lists(req.ifMatch, tag, true, false):
		rec.Status, rec.Length = http.StatusPreconditionFailed, 0
	case req.ifNoneMatch != "" && upload.Lists(req.ifNoneMatch, tag, true, true):
		rec.Status, rec.Length = http.StatusNotModified, 0
	case req.rangeSpec != "" && req.method == http.MethodGet && (req.ifRange == "" || tag != "" && req.ifRange == tag):
		start, length, ok := parseRange(req.rangeSpec, int64(rec.Size))
		switch {
		case ok && length < 0:
			rec.Status, rec.Length = http.StatusRequestedRangeNotSatisfiable, 0
		case ok:
			rec.Status, rec.Start, rec.Length = http.StatusPartialContent, uint64(start), uint64(length)
		}
	}
}

func etag(hash [32]byte) string { return `"` + hex.EncodeToString(hash[:]) + `"` }

// errTemplate: the record was made by another version of this program.
var errTemplate = errors.New("unknown response template")

// head is the response up to the object's bytes; of an error response it is
// the whole. A pure function: no clock, no configuration, no host.
func head(rec frame.Record) ([]byte, error) {
	if !heads(&rec) || int(rec.Media) >= len(media) || http.StatusText(int(rec.Status)) == "" {
		return nil, fmt.Errorf("template %d, status %d, media %d: %w", rec.Template, rec.Status, rec.Media, errTemplate)
	}
	switch {
	case rec.Flags&frame.Idle != 0, rec.Flags&frame.Upload != 0 && rec.Status != http.StatusContinue:
		return nil, nil
	case rec.Flags&frame.Upload != 0:
		return []byte("HTTP/1.1 100 Continue\r\n\r\n"), nil // RFC 9110 section 10.1.1
	}
	b := strconv.AppendUint(append(make([]byte, 0, 320), "HTTP/1.1 "...), uint64(rec.Status), 10)
	b = append(append(append(b, ' '), http.StatusText(int(rec.Status))...), "\r\nDate: "...)
	b = append(appendDate(b, rec.Date), "\r\n"...)
	text := ""
	switch rec.Status {
	case http.StatusOK, http.StatusPartialContent:
		b = appendObject(b, rec)
	case http.StatusNotModified:
		b = appendTag(b, rec)
	case http.StatusNoContent: // neither content nor a length (RFC 9110 section 8.6)
	default:
		text = http.StatusText(int(rec.Status)) + "\n"
		b = appendError(b, rec, text)
	}
	switch {
	case rec.Flags&frame.Close != 0:
		b = append(b, "Connection: close\r\n"...)
	case rec.Flags&frame.KeepAlive10 != 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(b, "\r\n"...)
	if rec.Flags&frame.Head != 0 {
		text = ""
	}
	return append(b, text...), nil
}

// appendDate is http.TimeFormat, whose layout is not read anew for each response.
func appendDate(b []byte, second uint32) []byte {
	t := time.Unix(int64(second), 0).UTC()
	year, month, day := t.Date()
	two := func(n int) { b = append(b, byte('0'+n/10), byte('0'+n%10)) }
	b = append(append(b, t.Weekday().String()[:3]...), ", "...)
	two(day)
	b = append(append(append(b, ' '), month.String()[:3]...), ' ')
	b = append(strconv.AppendInt(b, int64(year), 10), ' ') // of four digits until 2106
	two(t.Hour())
	b = append(b, ':')
	two(t.Minute())
	b = append(b, ':')
	two(t.Second())
	return append(b, " GMT"...)
}

func appendObject(b []byte, rec frame.Record) []byte {
	b = append(append(b, "Content-Type: "...), media[rec.Media].typ...)
	b = strconv.AppendUint(append(b, "\r\nContent-Length: "...), rec.Length, 10)
	b = append(b, "\r\nAccept-Ranges: bytes\r\n"...)
	if rec.Status == http.StatusPartialContent {
		b = fmt.Appendf(b, "Content-Range: bytes %d-%d/%d\r\n", rec.Start, rec.Start+rec.Length-1, rec.Size)
	}
	return appendTag(b, rec)
}

func appendTag(b []byte, rec frame.Record) []byte {
	if rec.Flags&frame.Pinned != 0 {
		return b
	}
	b = hex.AppendEncode(append(b, `ETag: "`...), rec.Object[:])
	return append(b, "\"\r\n"...)
}

func appendError(b []byte, rec frame.Record, text string) []byte {
	switch rec.Status {
	case http.StatusMethodNotAllowed:
		if b = append(b, "Allow: GET, HEAD"...); rec.Template == templatePuts {
			b = append(b, ", PUT"...)
		}
		b = append(b, "\r\n"...)
	case http.StatusRequestedRangeNotSatisfiable:
		b = append(append(b, "Content-Range: bytes */"...), strconv.FormatUint(rec.Size, 10)+"\r\n"...)
	}
	return fmt.Appendf(b, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n", len(text))
}

// wire is one whole response as bytes, addressable at any offset.
type wire struct {
	head   []byte
	body   content.Body // nil if there is none
	start  int64
	length int64        // of the body part
	sealed *seal.Stream // the same as TLS records; nil: in clear
}

func newWire(rec frame.Record, b content.Body) (wire, error) {
	h, err := head(rec)
	w := wire{head: h}
	if rec.Flags&frame.Head == 0 && (rec.Status == http.StatusOK || rec.Status == http.StatusPartialContent) {
		w.body, w.start, w.length = b, int64(rec.Start), int64(rec.Length)
	}
	return w, err
}

func (w wire) size() int64 {
	if w.sealed != nil {
		return w.sealed.Len()
	}
	return int64(len(w.head)) + w.length
}

// at returns bytes from offset off on, as many as lie together; io.EOF behind
// the last.
func (w wire) at(off int64) ([]byte, error) {
	switch {
	case w.sealed != nil:
		return w.sealed.At(off)
	case off < 0:
		return nil, fmt.Errorf("wire offset %d", off)
	case off < int64(len(w.head)):
		return w.head[off:], nil
	case off >= w.size():
		return nil, io.EOF
	case w.body == nil:
		return nil, errors.New("no object")
	}
	b, err := w.body.At(w.start + off - int64(len(w.head)))
	if err != nil {
		return nil, err
	}
	return b[:min(int64(len(b)), w.size()-off)], nil
}

// reader reads the response from an offset on.
func (w wire) reader(off int64) io.Reader { return &wireReader{w, off} }

type wireReader struct {
	w   wire
	off int64
}

func (r *wireReader) Read(p []byte) (int, error) {
	b, err := r.w.at(r.off)
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	r.off += int64(n)
	return n, nil
}
