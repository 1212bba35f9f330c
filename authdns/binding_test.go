package authdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

var web = placement.Binding{ALPN: []string{"h2", "h3"}, Port: 8443}

// TestBindings: RFC 9460 section 7.3, hints are the addresses that the same client gets
// by asking for them; section 4.1, which go along.
func TestBindings(t *testing.T) {
	snap := fleet(t, plan{https: &web, svcb: &placement.Binding{ALPN: []string{"dot"}, NoDefault: true}})
	st := compiled(t, snap, sources()...)
	for _, c := range []struct{ name, question, from, want string }{
		{"RFC 9460 2.2: parameters in order of key, both hints", "www.cdn.demo.test. HTTPS", euResolver,
			`NOERROR aa | www.cdn.demo.test. 20 HTTPS 1 . alpn="h2,h3" port="8443" ipv4hint="198.51.100.10,198.51.100.11" ipv6hint="2001:db8:a::10"` +
				` ar www.cdn.demo.test. 20 A 198.51.100.10, www.cdn.demo.test. 20 A 198.51.100.11, www.cdn.demo.test. 20 AAAA 2001:db8:a::10`},
		{"another client, another cluster", "www.cdn.demo.test. HTTPS", usResolver,
			`NOERROR aa | www.cdn.demo.test. 20 HTTPS 1 . alpn="h2,h3" port="8443" ipv4hint="198.51.100.74" ipv6hint="2001:db8:b::10,2001:db8:b::11"` +
				` ar www.cdn.demo.test. 20 A 198.51.100.74, www.cdn.demo.test. 20 AAAA 2001:db8:b::10, www.cdn.demo.test. 20 AAAA 2001:db8:b::11`},
		{"RFC 9460 7.3: no hint of a kind that there is not", "x.any.cdn.demo.test. HTTPS", elsewhere,
			`NOERROR aa | x.any.cdn.demo.test. 20 HTTPS 1 . alpn="h2,h3" port="8443" ipv4hint="198.51.100.138" ar x.any.cdn.demo.test. 20 A 198.51.100.138`},
		{"RFC 9460 7.1.1: no-default-alpn", "www.cdn.demo.test. SVCB", elsewhere,
			`NOERROR aa | www.cdn.demo.test. 20 SVCB 1 . alpn="dot" no-default-alpn="" ipv4hint="198.51.100.138" ar www.cdn.demo.test. 20 A 198.51.100.138`},
	} {
		if got := show(st.reply(t, ask(t, c.question), from(c.from, low))); got != c.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.name, c.question, got, c.want)
		}
	}
	none := compiled(t, fleet(t, plan{}), sources()...)
	if got := show(none.reply(t, ask(t, "www.cdn.demo.test. HTTPS"), from(euResolver, low))); !strings.HasPrefix(got, "NOERROR aa ns ") {
		t.Errorf("a service without bindings: %s", got)
	}
}

// TestBindingsAgree: whatever the client, and whoever is down, RFC 9460 section 7.3: the
// hints are what questions for A and AAAA get, scope and TTL included.
func TestBindingsAgree(t *testing.T) {
	for name, p := range map[string]plan{
		"well":      {},
		"one down":  {out: map[string]placement.Out{"ams1": placement.OutDown}},
		"fail open": {out: allOut, failAll: true},
		"all":       {out: allOut, failAll: true, allDown: placement.All},
		"static":    {out: allOut, failAll: true, allDown: placement.Static},
	} {
		p.https = &web
		st := compiled(t, fleet(t, p), sources()...)
		for i := range 64 {
			client := ecs(fmt.Sprintf("%s/24", []string{"198.51.100.0", "203.0.113.0", fmt.Sprintf("10.%d.3.0", i)}[i%3]))
			get := func(qtype string) *dns.Msg {
				return st.reply(t, ask(t, "www.cdn.demo.test. "+qtype, edns0(client)), from(elsewhere, low))
			}
			https, want := get("HTTPS"), append(get("A").Answer, get("AAAA").Answer...)
			if len(https.Answer) != 1 {
				t.Fatalf("%s: %s", name, show(https))
			}
			var hints []string
			for _, param := range https.Answer[0].(*dns.HTTPS).Value {
				if k := param.Key(); k == dns.SVCB_IPV4HINT || k == dns.SVCB_IPV6HINT {
					hints = append(hints, strings.Split(param.String(), ",")...)
				}
			}
			var addrs []string
			for _, rr := range want {
				addrs = append(addrs, dns.Field(rr, 1))
			}
			if !slices.Equal(hints, addrs) {
				t.Fatalf("%s, %s: hints %v, addresses %v", name, client, hints, addrs)
			}
			if a, b := showOPT(https.IsEdns0()), showOPT(get("A").IsEdns0()); a != b || https.Answer[0].Header().Ttl != want[0].Header().Ttl {
				t.Fatalf("%s, %s: %s, of addresses %s", name, client, a, b)
			}
		}
	}
}

const bindingZone = `$ORIGIN demo.test.
$TTL 3600
@	IN SOA a.ns hostmaster 5 7200 900 1209600 60
	IN NS a.ns
a.ns	IN A 192.0.2.1
@	IN HTTPS 0 shop
shop	IN HTTPS 1 . alpn=h2
	IN HTTPS 2 pool port=8443
	IN A 192.0.2.20
	IN AAAA 2001:db8::20
pool	IN A 192.0.2.21
out	IN HTTPS 1 www.other.test.
none	IN HTTPS 0 .
`

// TestBindingsOfFiles: RFC 9460 section 4.1, what the zone has of the targets goes along.
func TestBindingsOfFiles(t *testing.T) {
	src := textSource("", "demo.test.", "", bindingZone)
	st := compiled(t, nil, src)
	for _, c := range []struct{ name, question, want string }{
		{"RFC 9460 4.1: alias, bindings of the target", "demo.test. HTTPS",
			`NOERROR aa | demo.test. 3600 HTTPS 0 shop.demo.test. ar shop.demo.test. 3600 A 192.0.2.20, shop.demo.test. 3600 AAAA 2001:db8::20,` +
				` shop.demo.test. 3600 HTTPS 1 . alpn="h2", shop.demo.test. 3600 HTTPS 2 pool.demo.test. port="8443"`},
		{"RFC 9460 4.1: the owner's own addresses, and another's", "shop.demo.test. HTTPS",
			`NOERROR aa | shop.demo.test. 3600 HTTPS 1 . alpn="h2", shop.demo.test. 3600 HTTPS 2 pool.demo.test. port="8443"` +
				` ar shop.demo.test. 3600 A 192.0.2.20, shop.demo.test. 3600 AAAA 2001:db8::20, pool.demo.test. 3600 A 192.0.2.21`},
		{"of other zones nothing", "out.demo.test. HTTPS", `NOERROR aa | out.demo.test. 3600 HTTPS 1 www.other.test.`},
		{"RFC 9460 2.5.1: no service", "none.demo.test. HTTPS", `NOERROR aa | none.demo.test. 3600 HTTPS 0 .`},
	} {
		if got := show(st.reply(t, ask(t, c.question), from(elsewhere, low))); got != c.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.name, c.question, got, c.want)
		}
		p := newPaths(t, st, low)
		if p.compare(t, ask(t, c.question), elsewhere); p.quick != 1 {
			t.Errorf("%s: %s took the slow path", c.name, c.question)
		}
	}
	keys := keysOf(t, "demo.test.", true)
	signed := signedState(t, nil, signedSource("demo.test.", keys, bindingZone))
	m := signed.reply(t, ask(t, "shop.demo.test. HTTPS", do), from(elsewhere, low))
	if why := bogus(signed.low["demo.test."], m, signedAt); why != "" || len(m.Extra) != 7 {
		t.Errorf("signed: %s\n%s", why, m)
	}
}

// TestBindingsSigned: RFC 9460 section 4.1 and RFC 4035 section 3.1.1, record and
// additional addresses are signed; the bitmap lists the types (RFC 9824).
func TestBindingsSigned(t *testing.T) {
	st := signedState(t, fleet(t, plan{https: &web}), signedSources(t)...)
	z := st.low["cdn.demo.test."]
	m := st.reply(t, ask(t, "www.cdn.demo.test. HTTPS", do), from(euResolver, low))
	if why := bogus(z, m, signedAt); why != "" || len(m.Answer) != 2 || len(m.Extra) != 6 {
		t.Errorf("HTTPS: %s\n%s", why, m)
	}
	m = st.reply(t, ask(t, "www.cdn.demo.test. TXT", do), from(euResolver, low))
	if why := bogus(z, m, signedAt); why != "" || !strings.Contains(m.String(), "A AAAA RRSIG NSEC HTTPS") {
		t.Errorf("TXT: %s\n%s", why, m)
	}
	p := newPaths(t, st, low)
	for i, resolver := range []string{euResolver, usResolver, elsewhere} {
		for range 2 { // made, then kept
			p.compare(t, ask(t, "www.cdn.demo.test. HTTPS", do), resolver)
		}
		if p.quick != 2*(i+1) {
			t.Errorf("from %s the slow path answered", resolver)
		}
	}
}

// TestBindingsManyOrders: a cluster with too many orders of addresses is answered all the same.
func TestBindingsManyOrders(t *testing.T) {
	snap := fleet(t, plan{https: &web})
	sites := slices.Clone(snap.Inventory.Sites)
	many := placement.Cluster{Name: "web"}
	for i := range 13 {
		many.Addresses = append(many.Addresses, netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:443", 20+i)))
	}
	for i := range 7 {
		many.Addresses = append(many.Addresses, netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:a::%d]:443", 20+i)))
	}
	sites[0].Clusters = []placement.Cluster{sites[0].Clusters[0], many}
	snap.Inventory.Sites = sites
	p := newPaths(t, compiled(t, snap, sources()...), low)
	if p.compare(t, ask(t, "www.cdn.demo.test. HTTPS"), euResolver) {
		t.Error("91 orders were made ahead")
	}
	if !p.compare(t, ask(t, "www.cdn.demo.test. A"), euResolver) || !p.compare(t, ask(t, "www.cdn.demo.test. HTTPS"), usResolver) {
		t.Error("the slow path answered what was made ahead")
	}
}
