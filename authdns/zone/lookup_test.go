package zone

import (
	"slices"
	"testing"

	"github.com/miekg/dns"
)

const tree = head + `www IN A 192.0.2.10
alias IN CNAME www
a.b.ent IN A 192.0.2.11
*.wild IN A 192.0.2.12
*.wild IN MX 10 www
here.wild IN TXT "blocks"
x.y.wild IN TXT "ENT y blocks"
*.cw IN CNAME www
old IN DNAME new
sub IN NS ns.sub
sub IN DS 1 13 2 00000000000000000000000000000000000000000000000000000000000000aa
ns.sub IN A 192.0.2.13
`

func TestLookup(t *testing.T) {
	z := parse(t, tree)
	for _, c := range []struct {
		why, name string
		qtype     uint16
		kind      Kind
		owner     string
		wildcard  bool
	}{
		{"exact", "www.demo.test.", dns.TypeA, Answer, "www.demo.test.", false},
		{"RFC 2308 2.2 NODATA", "www.demo.test.", dns.TypeAAAA, NoData, "www.demo.test.", false},
		{"NXDOMAIN", "nix.demo.test.", dns.TypeA, NXDomain, "nix.demo.test.", false},
		{"RFC 8020 below a name", "a.www.demo.test.", dns.TypeA, NXDomain, "a.www.demo.test.", false},
		{"apex", "demo.test.", dns.TypeNS, Answer, "demo.test.", false},
		{"outside", "test.", dns.TypeNS, Outside, "", false},
		{"not a suffix by label", "xdemo.test.", dns.TypeNS, Outside, "", false},
		{"ENT", "ent.demo.test.", dns.TypeA, NoData, "ent.demo.test.", false},
		{"ENT deeper", "b.ent.demo.test.", dns.TypeA, NoData, "b.ent.demo.test.", false},
		{"child of ENT", "c.ent.demo.test.", dns.TypeA, NXDomain, "c.ent.demo.test.", false},
		{"CNAME", "alias.demo.test.", dns.TypeA, CNAME, "alias.demo.test.", false},
		{"CNAME asked", "alias.demo.test.", dns.TypeCNAME, Answer, "alias.demo.test.", false},
		{"RFC 4592 wildcard", "a.wild.demo.test.", dns.TypeA, Answer, "a.wild.demo.test.", true},
		{"RFC 4592 several labels deep", "a.b.c.wild.demo.test.", dns.TypeA, Answer, "a.b.c.wild.demo.test.", true},
		{"RFC 4592 NODATA", "a.wild.demo.test.", dns.TypeAAAA, NoData, "a.wild.demo.test.", true},
		{"RFC 4592 existing name blocks", "here.wild.demo.test.", dns.TypeA, NoData, "here.wild.demo.test.", false},
		{"RFC 4592 below an existing name", "a.here.wild.demo.test.", dns.TypeA, NXDomain, "a.here.wild.demo.test.", false},
		{"RFC 4592 ENT blocks", "y.wild.demo.test.", dns.TypeA, NoData, "y.wild.demo.test.", false},
		{"RFC 4592 below ENT", "z.y.wild.demo.test.", dns.TypeA, NXDomain, "z.y.wild.demo.test.", false},
		{"RFC 4592 2.3 asterisk asked", "*.wild.demo.test.", dns.TypeA, Answer, "*.wild.demo.test.", false},
		{"wildcard parent itself", "wild.demo.test.", dns.TypeA, NoData, "wild.demo.test.", false},
		{"wildcard CNAME", "a.cw.demo.test.", dns.TypeA, CNAME, "a.cw.demo.test.", true},
		{"RFC 6672 DNAME", "a.b.old.demo.test.", dns.TypeA, DNAME, "old.demo.test.", false},
		{"RFC 6672 owner itself", "old.demo.test.", dns.TypeA, NoData, "old.demo.test.", false},
		{"cut", "sub.demo.test.", dns.TypeA, Delegation, "sub.demo.test.", false},
		{"NS at cut", "sub.demo.test.", dns.TypeNS, Delegation, "sub.demo.test.", false},
		{"below cut", "a.b.sub.demo.test.", dns.TypeA, Delegation, "sub.demo.test.", false},
		{"glue asked", "ns.sub.demo.test.", dns.TypeA, Delegation, "sub.demo.test.", false},
		{"RFC 4035 3.1.4.1 DS at cut", "sub.demo.test.", dns.TypeDS, Answer, "sub.demo.test.", false},
		{"DS below cut", "a.sub.demo.test.", dns.TypeDS, Delegation, "sub.demo.test.", false},
	} {
		t.Run(c.why, func(t *testing.T) {
			r := z.Lookup(c.name, c.qtype)
			if r.Kind != c.kind || r.Owner != c.owner || r.Wildcard != c.wildcard {
				t.Errorf("got %v %q wildcard=%t; want %v %q %t", r.Kind, r.Owner, r.Wildcard, c.kind, c.owner, c.wildcard)
			}
		})
	}
}

func TestWith(t *testing.T) {
	plain := parse(t, tree)
	z := plain.With([]Mark{
		{Name: "Steered.demo.test.", Value: 1},
		{Name: "deep.in.demo.test.", Value: 2},
		{Name: "*.sw.demo.test.", Value: 3},
		{Name: "kid.demo.test.", Cut: true, Value: 4},
		{Name: "demo.test.", Value: 5},
		{Name: "elsewhere.test.", Value: 6},
	})
	for _, c := range []struct {
		why, name string
		qtype     uint16
		kind      Kind
		mark      any
	}{
		{"steered", "steered.demo.test.", dns.TypeA, NoData, 1},
		{"ENT made by a mark", "in.demo.test.", dns.TypeA, NoData, nil},
		{"beside a mark", "x.in.demo.test.", dns.TypeA, NXDomain, nil},
		{"wildcard", "a.b.sw.demo.test.", dns.TypeA, NoData, 3},
		{"cut", "a.kid.demo.test.", dns.TypeA, Delegation, 4},
		{"DS at cut", "kid.demo.test.", dns.TypeDS, NoData, nil},
		{"apex keeps its records", "demo.test.", dns.TypeSOA, Answer, 5},
		{"untouched", "www.demo.test.", dns.TypeA, Answer, nil},
	} {
		t.Run(c.why, func(t *testing.T) {
			if r := z.Lookup(c.name, c.qtype); r.Kind != c.kind || r.Mark != c.mark {
				t.Errorf("got %v, mark %v; want %v, %v", r.Kind, r.Mark, c.kind, c.mark)
			}
		})
	}
	if r := plain.Lookup("steered.demo.test.", dns.TypeA); r.Kind != NXDomain {
		t.Errorf("the zone underneath changed: %v", r.Kind)
	}
}

func TestDiff(t *testing.T) {
	old := parse(t, head+"a IN A 192.0.2.1\nb IN A 192.0.2.1\nx.ent IN A 192.0.2.1\n")
	new := parse(t, head+"b IN A 192.0.2.2\nc IN A 192.0.2.1\n")
	d := Diff(old, new)
	if want := []string{"a.demo.test.", "x.ent.demo.test."}; !slices.Equal(d.Lost, want) {
		t.Errorf("lost %v, want %v", d.Lost, want)
	}
	if want := []string{"c.demo.test."}; !slices.Equal(d.Added, want) {
		t.Errorf("added %v, want %v", d.Added, want)
	}
	if d := Diff(nil, new); len(d.Lost) != 0 || len(d.Added) != 4 {
		t.Errorf("from nothing: %v", d)
	}
}

func TestLater(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		want bool
	}{
		{2, 1, true}, {1, 2, false}, {1, 1, false}, {0, 1<<32 - 1, true},
		{1<<32 - 1, 0, false}, {1 << 31, 0, false}, {0, 1 << 31, false}, {1<<31 - 1, 0, true},
	} {
		if got := Later(c.a, c.b); got != c.want {
			t.Errorf("RFC 1982 3.2: Later(%d, %d) = %t", c.a, c.b, got)
		}
	}
}
