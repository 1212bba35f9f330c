package silence

import (
	"net/netip"
	"testing"
)

func testFlows() []Flow {
	return []Flow{
		{netip.MustParseAddrPort("192.0.2.10:443"), netip.MustParseAddrPort("198.51.100.7:4000")},
		{netip.MustParseAddrPort("[2001:db8:100::10]:443"), netip.MustParseAddrPort("[2001:db8:1::2]:65535")},
	}
}

// TestKey: the key of an element has the layout that the rule reads off a
// segment, 4 octets for each port, and is read back as the same flow.
func TestKey(t *testing.T) {
	for i, want := range testFlows() {
		key := want.key()
		if size := []int{16, 40}[i]; len(key) != size {
			t.Errorf("%v: key of %d octets, want %d", want, len(key), size)
		}
		if got, ok := flowOf(key); !ok || got != want {
			t.Errorf("read %v, %t, want %v", got, ok, want)
		}
		if _, ok := flowOf(key[1:]); ok {
			t.Errorf("%v: a key that is cut was read", want)
		}
	}
}

// TestElements: every flow goes to the set of its family.
func TestElements(t *testing.T) {
	if v4, v6 := elements(testFlows()); len(v4) != 1 || len(v6) != 1 || len(v4[0].Key) != 16 || len(v6[0].Key) != 40 {
		t.Errorf("%d and %d elements, want one each", len(v4), len(v6))
	}
}

// TestEnded: after its end nothing is told to the kernel, and nobody waits.
func TestEnded(t *testing.T) {
	s := &Silence{wish: map[Flow]bool{}, quiet: map[Flow]bool{}}
	f := testFlows()[0]
	s.Add(f)
	s.enter()
	s.renew()
	s.Remove(f)
	if s.Len() != 0 || len(s.wish) != 0 {
		t.Errorf("%d quiet, %d wished for", s.Len(), len(s.wish))
	}
	if err := s.End(); err != nil {
		t.Error(err)
	}
}
