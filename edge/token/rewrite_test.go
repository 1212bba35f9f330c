package token

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// event is what a client is told.
type event struct{ kind, data, id string }

// events reads a whole stream, line by line as the HTML standard (9.2.6) says: the
// oracle, and with a map it says what a rewritten stream must mean.
func events(stream string, ids func(string) (string, bool)) (out []event) {
	stream = strings.TrimPrefix(stream, byteOrderMark)
	stream = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(stream)
	lines := strings.Split(stream, "\n")
	var kind, last string
	var data []string
	for _, line := range lines[:len(lines)-1] { // what has no end is no line
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data != nil {
				out = append(out, event{kind, strings.Join(data, "\n"), last})
			}
			kind, data = "", nil
		case name == "event":
			kind = value
		case name == "data":
			data = append(data, value)
		case name == "id" && !strings.ContainsRune(value, 0):
			if id, ok := ids(value); ok {
				last = id
			}
		}
	}
	return out
}

func asIs(id string) (string, bool) { return id, true }

// upper stands for the seal: it refuses ids which are too long.
func upper(id string) (string, bool) {
	return strings.ToUpper(id) + "!", len(id) <= MaxPosition
}

// rewrite passes a stream in random pieces.
func rewrite(stream string, rng *rand.Rand) string {
	r := NewRewriter("", upper)
	var out []byte
	for len(stream) > 0 {
		n := 1 + rng.IntN(len(stream))
		if rng.IntN(2) == 0 {
			n = min(n, 3)
		}
		out = r.Append(out, []byte(stream[:n]))
		stream = stream[n:]
	}
	return string(out)
}

func TestRewrite(t *testing.T) {
	long := strings.Repeat("x", MaxPosition)
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"one event", "id: 1\ndata: a\n\n", "id: 1!\ndata: a\n\n"},
		{"no blank", "id:a\n\n", "id: A!\n\n"},
		{"empty id", "id\n\nid:\n\n", "id: !\n\nid: !\n\n"},
		{"CR", "id:1\rdata:x\r\r", "id: 1!\rdata:x\r\r"},
		{"CRLF", "id:1\r\ndata:x\r\n\r\n", "id: 1!\r\ndata:x\r\n\r\n"},
		{"other fields", "i\nidx: 1\nide\n id: 1\nID: 1\ndata:id: 3\n:id: 4\n\n", "i\nidx: 1\nide\n id: 1\nID: 1\ndata:id: 3\n:id: 4\n\n"},
		{"byte order mark", byteOrderMark + "id: 1\n\n", "id: 1!\n\n"},
		{"half a mark", "\xef\xbbid: 1\n\n", "\xef\xbbid: 1\n\n"},
		{"longest", "id: " + long + "\n\n", "id: " + strings.ToUpper(long) + "!\n\n"},
		{"too long", "id: " + long + "y\ndata: a\n\n", ":\ndata: a\n\n"},
		{"far too long", "id: " + long + long + "\ndata: a\n\n", ":\ndata: a\n\n"},
		{"NUL", "id: a\x00b\ndata: a\n\n", ":\ndata: a\n\n"},
		{"cut off", "data: a\n\nid: 7", "data: a\n\n"},
	} {
		for seed := range uint64(20) {
			if got := rewrite(c.in, rand.New(rand.NewPCG(seed, 2))); got != c.want {
				t.Errorf("%s, seed %d: %q, want %q", c.name, seed, got, c.want)
				break
			}
		}
	}
}

// TestRewriteBetween: a block of ours may stand where it becomes part of no event.
func TestRewriteBetween(t *testing.T) {
	r := NewRewriter("41", upper)
	for _, c := range []struct {
		piece string
		want  bool
		last  string
	}{
		{"", true, "41"}, {"i", false, "41"}, {"d: 42", false, "41"}, {"\r", false, "42"}, {"\ndata: x\n", false, "42"},
		{"\r", true, "42"}, {"\n", true, "42"}, {": still he", false, "42"}, {"re\n", true, "42"}, {"event: x\n", false, "42"}, {"\n", true, "42"},
	} {
		r.Append(nil, []byte(c.piece))
		if r.Between() != c.want || r.Last() != c.last {
			t.Errorf("after %q: between %v, last %q, want %v, %q", c.piece, r.Between(), r.Last(), c.want, c.last)
		}
	}
}

func FuzzRewrite(f *testing.F) {
	for i, s := range []string{"id: 1\ndata: a\n\n", "\xef\xbb\xbfid\r\rdata\r\n\r\n", "id: a\x00\n:\n\ndata: x\nid: 2\n\n", "\xefid: 1\n\n", "id: " + strings.Repeat("y", 300) + "\ndata:\n\n"} {
		f.Add(s, uint64(i))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		if strings.HasPrefix(strings.TrimPrefix(s, byteOrderMark), byteOrderMark) {
			return // the second is text, and would be the first one's place
		}
		got := rewrite(s, rand.New(rand.NewPCG(seed, 3)))
		want, have := events(s, upper), events(got, asIs)
		if fmt.Sprint(want) != fmt.Sprint(have) {
			t.Errorf("%q becomes %q: events %q, want %q", s, got, have, want)
		}
	})
}
