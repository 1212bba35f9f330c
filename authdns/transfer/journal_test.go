package transfer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// receive puts what answers a request together, as a secondary does, from what it
// holds (nil: nothing), and returns the text of the zone.
func receive(t *testing.T, o *Out, held *list) (string, Kind) {
	t.Helper()
	p := o.find("demo.test.")
	serial := uint32(0)
	in := incoming{}
	if held != nil {
		serial = held.soa.Serial
		in = incoming{have: serial, partial: true}
	}
	rrs, kind := p.records(held != nil, serial)
	for rr := range rrs {
		if err := in.add(rr); err != nil {
			t.Fatal(err)
		}
	}
	if kind == KindNone {
		if !in.single() {
			t.Fatal("more than the SOA for one who has the newest")
		}
		return held.text(), kind
	}
	if !in.done || in.kind() != kind {
		t.Fatalf("the reply is not whole (%t), or no %s", in.done, kind)
	}
	c := newContents(in.soa, in.whole)
	if in.deltas != nil {
		c = newContents(held.soa, held.rrs)
		if err := c.apply(in.deltas); err != nil {
			t.Fatal(err)
		}
	}
	return string(c.text()), kind
}

// TestJournalOracle: from whatever version a secondary has, over 120 random changes
// and across the end of the serials' circle, it gets exactly the newest one.
func TestJournalOracle(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	o := &Out{Max: 1}
	var all []*list
	kinds := make(map[Kind]int)
	serial := uint32(1<<32 - 100)
	lines := hosts(100)
	for range 120 {
		serial += 1 + random.Uint32N(3)
		for range 1 + random.IntN(5) {
			lines[random.IntN(len(lines))] = fmt.Sprintf("h%d.demo.test. %d IN A 198.51.100.%d", random.IntN(400), 60*(1+random.IntN(2)), 1+random.IntN(250))
		}
		slices.Sort(lines)
		z := makeZone(t, serial, slices.Compact(slices.Clone(lines))...)
		z.rrs = sameTTL(z.rrs)
		all = append(all, z)
		o.Set([]Outgoing{{Name: "demo.test.", Zone: z, Rules: Rules{Keys: []string{"k."}}, Diff: z.diff}})
		j := o.find("demo.test.").journal
		if len(j.deltas) > maxDeltas || j.size > z.Size() {
			t.Fatalf("serial %d: a journal of %d deltas and %d records, for a zone of %d", serial, len(j.deltas), j.size, z.Size())
		}
		for _, held := range []*list{nil, z, all[len(all)-min(len(all), 2)], all[random.IntN(len(all))]} {
			text, kind := receive(t, o, held)
			kinds[kind]++
			if text != z.text() {
				t.Fatalf("serial %d from %v by %s:\n%s\nwant\n%s", serial, held, kind, text, z.text())
			}
		}
	}
	if kinds[KindIXFR] < 90 || kinds[KindAXFR] < 120 || kinds[KindNone] < 120 {
		t.Errorf("kinds %v: not all ways were gone", kinds)
	}
}

// sameTTL gives each set one TTL and drops doubles, as a zone in force has it.
func sameTTL(rrs []dns.RR) []dns.RR {
	first := make(map[string]uint32)
	seen := make(map[string]bool)
	var out []dns.RR
	for _, rr := range rrs {
		k := rr.Header().Name + dns.Type(rr.Header().Rrtype).String()
		if _, ok := first[k]; !ok {
			first[k] = rr.Header().Ttl
		}
		rr.Header().Ttl = first[k]
		if !seen[keyOf(rr)] {
			seen[keyOf(rr)], out = true, append(out, rr)
		}
	}
	return out
}

// TestJournalBeginsAnew: once a version was replaced without a later serial, no
// delta from before is handed out: whoever holds that serial may hold either.
func TestJournalBeginsAnew(t *testing.T) {
	o := &Out{Max: 1}
	set := func(z *list) {
		o.Set([]Outgoing{{Name: "demo.test.", Zone: z, Diff: z.diff}})
	}
	lines := hosts(50)
	one, two := makeZone(t, 1, lines...), makeZone(t, 2, lines[1:]...)
	set(one)
	set(two)
	if _, kind := receive(t, o, one); kind != KindIXFR {
		t.Fatalf("from 1 to 2 by %s", kind)
	}
	again := makeZone(t, 2, lines[2:]...)
	set(again)
	three := makeZone(t, 3, lines[3:]...)
	set(three)
	if text, kind := receive(t, o, one); kind != KindAXFR || text != three.text() {
		t.Errorf("from 1 by %s, want the whole zone", kind)
	}
	if text, kind := receive(t, o, again); kind != KindIXFR || text != three.text() {
		t.Errorf("from the second 2 by %s", kind)
	}
}

// TestPermit: who may have a zone.
func TestPermit(t *testing.T) {
	net := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	in, in6, out := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("198.51.100.7")
	for _, c := range []struct {
		why   string
		rules Rules
		from  netip.Addr
		key   string
		want  bool
	}{
		{"no rules: nobody", Rules{}, in, "", false},
		{"no rules, with a key: nobody", Rules{}, in, "k.", false},
		{"prefix", Rules{Allow: net}, in, "", true},
		{"prefix, IPv6", Rules{Allow: net}, in6, "", true},
		{"outside", Rules{Allow: net}, out, "", false},
		{"prefix, and a key that is not asked for", Rules{Allow: net}, in, "k.", true},
		{"key from anywhere", Rules{Keys: []string{"j.", "k."}}, out, "k.", true},
		{"another key", Rules{Keys: []string{"k."}}, in, "j.", false},
		{"both: key only", Rules{Allow: net, Keys: []string{"k."}}, out, "k.", false},
		{"both: prefix only", Rules{Allow: net, Keys: []string{"k."}}, in, "", false},
		{"both", Rules{Allow: net, Keys: []string{"k."}}, in, "k.", true},
	} {
		if got := c.rules.permit(c.from, c.key); got != c.want {
			t.Errorf("%s: %t", c.why, got)
		}
	}
}

// TestLargestRecord: a record as large as a zone may hold fills a message of its
// own, signed, whatever the buffer; no message is longer than its length can say.
func TestLargestRecord(t *testing.T) {
	big := &dns.TXT{Hdr: dns.RR_Header{Name: "big.demo.test.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 300}}
	for len(big.Txt) < 250 { // 64,000 octets
		big.Txt = append(big.Txt, strings.Repeat("x", 255))
	}
	z := makeZone(t, 1, hosts(3)...)
	z.rrs = append(z.rrs, big)
	ask := &chain{key: ring(t).Find("one.test"), now: time.Now}
	r, _ := (&Desk{Keys: ring(t), Now: time.Now}).Read(ask.sign(query(t, "demo.test.", dns.TypeAXFR)))
	p := &published{zone: z}
	rrs, _ := p.records(false, 0)
	got := 0
	err := stream(rrs, r, make([]byte, 3*dns.MaxMsgSize), func(msg []byte) error {
		if len(msg) > dns.MaxMsgSize {
			t.Errorf("a message of %d octets", len(msg))
		}
		var m dns.Msg
		if err := m.Unpack(msg); err != nil {
			return err
		}
		got += len(m.Answer)
		return nil
	})
	if want := z.Size() + 1; err != nil || got != want {
		t.Errorf("%d records, want %d; %v", got, want, err)
	}
}

// TestPlaces: no more transfers at once than there are places; one too many is
// told to come back.
func TestPlaces(t *testing.T) {
	o := &Out{Max: 1}
	z := makeZone(t, 1, hosts(3000)...)
	o.Set([]Outgoing{{Name: "demo.test.", Zone: z, Rules: Rules{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}})
	d := &Desk{Out: o}
	from := netip.MustParseAddr("192.0.2.1")
	ask := func(write func([]byte) error) error {
		r, ok := d.Read(query(t, "demo.test.", dns.TypeAXFR))
		if !ok {
			t.Fatal("not read")
		}
		p, _ := o.permitted(r, from)
		return o.send(r, p, make([]byte, dns.MaxMsgSize), write)
	}
	messages := 0
	err := ask(func(msg []byte) error {
		if len(msg) > messageSize {
			t.Errorf("a message of %d octets", len(msg))
		}
		if messages++; messages == 1 {
			return ask(func(msg []byte) error {
				if rcodeOf(msg) != dns.RcodeServerFailure {
					t.Errorf("a second transfer is answered with %s", rcodeName(rcodeOf(msg)))
				}
				return nil
			})
		}
		return nil
	})
	if err != nil || messages < 3 {
		t.Errorf("%d messages, %v", messages, err)
	}
	if err := ask(func([]byte) error { return nil }); err != nil {
		t.Errorf("the place was not given back: %v", err)
	}
	want := []Sent{{"demo.test.", "axfr", 2}, {"demo.test.", "busy", 1}}
	if got := o.Sent(); !slices.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}
