package node

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

func server(name string) placement.Node {
	return placement.Node{Name: name, Unit: "rhumb-dns", DNS: &placement.DNSStatus{}}
}

func crashed(name string, at int) placement.Node {
	n := server(name)
	n.DNS.Crashed = clockAt(at)
	return n
}

func testWave() *Wave {
	return &Wave{Node: "t", Least: 2, Within: 45 * time.Minute, Grace: time.Minute}
}

// TestWave is the table of the type's comment, and what a fleet does on an ordinary day.
func TestWave(t *testing.T) {
	twin, confined := crashed("u", 90), server("b")
	twin.Twin = &placement.TwinStatus{}
	confined.DNS.Confined = clockAt(95)
	all := []placement.Node{server("a"), server("b"), server("c"), server("t")}
	for _, c := range []struct {
		name  string
		first []placement.Node
		now   []placement.Node
		at    int // of the look after the first, which is at 0
		again int // of one more look; 0: none
		want  string
	}{
		{"nothing", all, all, 100, 0, ""},
		{"one of three crashed", all, []placement.Node{crashed("a", 90), server("b"), server("c")}, 100, 0, ""},
		{"two crashed", all, []placement.Node{crashed("a", 90), crashed("b", 99), server("c")}, 100, 0, "2 of 3 other name servers: a crashed"},
		{"one crashed, one quarantines", all, []placement.Node{crashed("a", 90), confined, server("c")}, 100, 0, "b queries in quarantine"},
		{"two crashed long ago", all, []placement.Node{crashed("a", 90), crashed("b", 99), server("c")}, 3000, 0, ""},
		{"two are upgraded", all, []placement.Node{server("c")}, 100, 130, ""},
		{"two are gone", all, []placement.Node{server("c")}, 100, 161, "2 of 3 other name servers: a gone since"},
		{"one is gone, one crashed", all, []placement.Node{crashed("b", 99), server("c")}, 100, 161, "a gone"},
		{"the only other one", []placement.Node{server("a")}, []placement.Node{crashed("a", 90)}, 100, 0, "1 of 1"},
		{"a twin's crash", []placement.Node{server("a"), server("b")}, []placement.Node{crashed("a", 90), server("b"), twin}, 100, 0, ""},
		{"its own crash", all, []placement.Node{server("a"), server("b"), server("c"), crashed("t", 90)}, 100, 0, ""},
		{"nobody was ever there", nil, nil, 100, 161, ""},
	} {
		w := testWave()
		if got := w.Look(clockAt(0), c.first, nil); got != "" {
			t.Errorf("%s: at first %q", c.name, got)
		}
		got := w.Look(clockAt(c.at), c.now, nil)
		if c.again > 0 {
			if got != "" {
				t.Errorf("%s: too early: %q", c.name, got)
			}
			got = w.Look(clockAt(c.again), c.now, nil)
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestWaveOfRoutes: when nobody else announces what this node announces, it is alone.
func TestWaveOfRoutes(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.0/24")
	at := func(node string, step placement.Step, twin bool) placement.Announced {
		return placement.Announced{Prefix: p, Node: node, Step: step, Twin: twin}
	}
	w := testWave()
	own, other, second := at("t", placement.Prepend, true), at("a", placement.Announce, false), at("u", placement.Prepend, true)
	for _, c := range []struct {
		at   int
		live []placement.Announced
		want bool
	}{
		{0, []placement.Announced{own}, false}, // the others have not begun
		{100, []placement.Announced{own, other}, false},
		{200, []placement.Announced{own, at("a", placement.GShut, false)}, false},
		{210, []placement.Announced{own}, false}, // restarted
		{230, []placement.Announced{own, other}, false},
		{300, []placement.Announced{own, second, at("a", placement.Withdrawn, false)}, false},
		{359, []placement.Announced{own, second}, false},
		{360, []placement.Announced{own, second}, true},
		{400, []placement.Announced{own}, true},
		{410, []placement.Announced{own, other}, false},
		{420, []placement.Announced{}, false}, // nor does it itself
		{500, []placement.Announced{}, false},
	} {
		if got := w.Look(clockAt(c.at), nil, c.live); (got != "") != c.want {
			t.Errorf("at %d: %q", c.at, got)
		}
	}
}

// TestWaveIsOver: once an operator has said so, what was before counts no more.
func TestWaveIsOver(t *testing.T) {
	w := testWave()
	ill := []placement.Node{crashed("a", 90), crashed("b", 99)}
	w.Look(clockAt(0), ill, nil)
	if w.Look(clockAt(100), ill, nil) == "" {
		t.Fatal("no wave")
	}
	w.Clear(clockAt(200))
	if got := w.Look(clockAt(201), ill, nil); got != "" {
		t.Errorf("after the all-clear: %q", got)
	}
	if w.Look(clockAt(400), []placement.Node{crashed("a", 300), crashed("b", 301)}, nil) == "" {
		t.Error("a second wave goes by")
	}
}
