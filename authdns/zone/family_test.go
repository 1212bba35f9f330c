package zone

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"
)

// TestFamilyOracle: whatever is added to a family and its clones, each finds its own and
// nothing else, in order.
func TestFamilyOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 19))
	label := func() string { return []string{"a", "b\\.c", "*", "d\\\\", ""}[r.IntN(5)] + fmt.Sprint(r.IntN(200)) }
	for range 50 {
		n := &node{name: "demo.test.", kids: &family{}}
		var want []string
		for range r.IntN(300) {
			l := label()
			if n.kid(l) != nil {
				continue
			}
			before := n.kids
			if r.IntN(10) == 0 {
				n.kids = n.kids.clone()
			}
			n.kids.add(&node{name: l + ".demo.test."})
			if want = append(want, l); before != n.kids && before.place(l) >= 0 {
				t.Fatalf("%q was added to a clone and is in the other one too", l)
			}
		}
		for i, l := range want {
			if k := n.kid(l); k == nil || k.label() != l || n.below()[i] != k {
				t.Fatalf("%q of %d is found as %v", l, len(want), k)
			}
		}
		for range 100 {
			l := label() + "x"
			if k := n.kid(l); k != nil {
				t.Fatalf("%q is found as %q", l, k.name)
			}
		}
	}
}

// TestWithinOracle: names are cut as the library cuts them.
func TestWithinOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 29))
	name := func() string {
		s := ""
		for range r.IntN(5) {
			s += []string{"a", "test", "b\\.test", "\\\\", "x\\\\", "\\000"}[r.IntN(6)] + "."
		}
		if s == "" {
			return "."
		}
		return s
	}
	for range 20_000 {
		n, origin := name(), name()
		rest, ok := within(n, origin)
		if ok != dns.IsSubDomain(origin, n) {
			t.Fatalf("%q within %q: %v", n, origin, ok)
		}
		if !ok {
			continue
		}
		all := dns.SplitDomainName(n)
		for i := len(all) - dns.CountLabel(origin) - 1; i >= 0; i-- {
			var label string
			if label, rest = topmost(rest); label != all[i] {
				t.Fatalf("label %d of %q below %q is %q, want %q", i, n, origin, label, all[i])
			}
			if b := behind(n, rest); dns.CountLabel(b) != len(all)-i || !dns.IsSubDomain(b, n) {
				t.Fatalf("%q is behind %q of %q", b, rest, n)
			}
		}
		if rest != "" {
			t.Fatalf("%q is left of %q below %q", rest, n, origin)
		}
	}
}

// TestCanonicalAsAsked: however a name is written in a file, it is found as a message
// spells it.
func TestCanonicalAsAsked(t *testing.T) {
	for _, c := range []struct{ written, asked string }{
		{"it's", "it\\'s.demo.test."},
		{"a\\@b", "a\\@b.demo.test."},
		{"a@b", "a\\@b.demo.test."},
		{"\\065", "a.demo.test."},
		{"É", "\\195\\137.demo.test."},
		{"X.Y", "x.y.demo.test."},
	} {
		z := parse(t, head+c.written+" A 192.0.2.1\n")
		if r := z.Lookup(c.asked, dns.TypeA); r.Kind != Answer {
			t.Errorf("%s is asked for as %s: %v", c.written, c.asked, r.Kind)
		}
	}
}

// TestNodeNames: every node has the name by which it is found, whatever was laid over
// the zone or has grown on it.
func TestNodeNames(t *testing.T) {
	z := parse(t, head+"a.b.c A 192.0.2.1\n*.W A 192.0.2.2\n\\065.x\\.y A 192.0.2.3\n")
	rr, err := dns.NewRR("P.q.demo.test. 60 IN A 192.0.2.4")
	if err != nil {
		t.Fatal(err)
	}
	for name, z := range map[string]*Zone{"file": z, "with": z.With([]Mark{{Name: "m.n.b.c.demo.test."}}), "grown": z.Grown([]dns.RR{rr}), "plus": z.Plus([]dns.RR{rr})} {
		seen := 0
		z.walk(func(name string, n *node, _ bool) {
			if seen++; z.node(name) != n || name != n.name {
				t.Errorf("%q is found as %v", name, z.node(name))
			}
		})
		if seen < 9 {
			t.Errorf("%s: %d names", name, seen)
		}
	}
}

// TestChangesStandAlone: what is remembered of a version that has gone does not keep it.
func TestChangesStandAlone(t *testing.T) {
	old, next := parse(t, head+"a A 192.0.2.1\nb A 192.0.2.2\n"), parse(t, head+"a A 192.0.2.1\nc A 192.0.2.3\n")
	removed, added := Changes(old, next)
	if len(removed) != 1 || len(added) != 1 || removed[0].Header().Name != "b.demo.test." || added[0].Header().Name != "c.demo.test." {
		t.Fatalf("removed %v, added %v", removed, added)
	}
	if removed[0] == old.RRset("b.demo.test.", dns.TypeA)[0] {
		t.Error("what was removed is the old version's own record")
	}
}
