package transfer

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestIncoming: how a reply is understood. S5 is a SOA with that serial, x another
// record; the zone held has serial 5.
func TestIncoming(t *testing.T) {
	for _, c := range []struct {
		why, records string
		whole        int
		deltas       string // removed-added of each
		fault        string
	}{
		{"RFC 5936 2.2 whole", "S7 x x x S7", 3, "", ""},
		{"RFC 5936 2.2 an empty zone", "S7 S7", 0, "", ""},
		{"RFC 1995 4 one difference", "S7 S5 x x S7 x S7", 0, "2-1", ""},
		{"RFC 1995 4 two", "S9 S5 x S7 x x S7 S9 x S9", 0, "1-2 0-1", ""},
		{"RFC 1995 4 nothing removed, nothing added", "S7 S5 S7 S7", 0, "0-0", ""},
		{"does not begin with a SOA", "x S7", 0, "", "does not begin"},
		{"behind the end", "S7 x S7 x", 0, "", "behind the last"},
		{"changes on the way", "S7 x S8", 0, "", "changed on the way"},
		{"a gap", "S9 S5 S7 S8 S9 S9", 0, "", "begins at serial 8"},
		{"backwards", "S9 S5 S4 S9", 0, "", "back to 4"},
		{"from another serial than ours: not a difference", "S9 S6 x S9", 0, "", "changed on the way"},
	} {
		t.Run(c.why, func(t *testing.T) {
			in := incoming{have: 5, partial: true}
			var err error
			for i, w := range strings.Fields(c.records) {
				r := rr(t, "h.demo.test. 300 IN A 192.0.2.1")
				if w[0] == 'S' {
					r = rr(t, "demo.test. 300 IN SOA ns.demo.test. h.demo.test. "+w[1:]+" 3600 600 86400 60")
				}
				if err = in.add(r); err != nil {
					break
				}
				if last := i == len(strings.Fields(c.records))-1; in.done != last && c.fault == "" {
					t.Fatalf("after %d records: done %t", i+1, in.done)
				}
			}
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("error %v, want %q", err, c.fault)
				}
				return
			}
			var deltas []string
			for _, d := range in.deltas {
				deltas = append(deltas, string('0'+byte(len(d.Removed)))+"-"+string('0'+byte(len(d.Added))))
			}
			if err != nil || len(in.whole) != c.whole || strings.Join(deltas, " ") != c.deltas {
				t.Errorf("%d records, deltas %v, %v", len(in.whole), deltas, err)
			}
		})
	}
}

// TestMisfit: a difference which does not fit to what is held is refused.
func TestMisfit(t *testing.T) {
	held := makeZone(t, 5, "a.demo.test. 300 IN A 192.0.2.2")
	a, b := rr(t, "A.demo.test. 60 IN A 192.0.2.2"), rr(t, "b.demo.test. 300 IN A 192.0.2.2")
	six := makeZone(t, 6).soa
	for _, c := range []struct {
		why string
		d   Delta
		ok  bool
	}{
		{"fits, whatever case and TTL", Delta{From: held.soa, To: six, Removed: []dns.RR{a}, Added: []dns.RR{b}}, true},
		{"a TTL changes", Delta{From: held.soa, To: six, Removed: []dns.RR{a}, Added: []dns.RR{a}}, true},
		{"removes what is not there", Delta{From: held.soa, To: six, Removed: []dns.RR{b}}, false},
		{"adds what is there", Delta{From: held.soa, To: six, Added: []dns.RR{a}}, false},
		{"from another serial", Delta{From: six, To: makeZone(t, 7).soa}, false},
		{"without an end", Delta{From: held.soa}, false},
	} {
		c0, err := readContents("demo.test.", []byte(held.text()))
		if err != nil {
			t.Fatal(err)
		}
		if err := c0.apply([]Delta{c.d}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.why, err)
		}
	}
}
