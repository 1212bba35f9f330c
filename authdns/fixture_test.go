package authdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
	"rhumb/placement"
	"rhumb/placement/lpm"
)

const demoZone = `$ORIGIN demo.test.
$TTL 3600
@	IN SOA a.ns hostmaster 5 7200 900 1209600 60
	IN NS a.ns
	IN NS b.ns
a.ns	IN A 192.0.2.1
	IN AAAA 2001:db8:53::1
b.ns	IN A 192.0.2.2
www	IN A 192.0.2.10
	IN TYPE65400 \# 2 abcd
alias	IN CNAME www
leave	IN CNAME www.other.test.
tocut	IN CNAME x.sub
todyn	IN CNAME www.cdn
dangling IN CNAME nix
loop	IN CNAME loop2
loop2	IN CNAME loop
a.b.ent	IN A 192.0.2.11
*.wild	IN A 192.0.2.12
*.cw	IN CNAME www
old	IN DNAME new
a.new	IN A 192.0.2.13
long	IN DNAME abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz.demo.test.
sub	IN NS ns.sub
	IN NS b.ns
	IN DS 1 13 2 00000000000000000000000000000000000000000000000000000000000000AA
ns.sub	IN A 192.0.2.14
$GENERATE 1-90 many A 192.0.2.$
$GENERATE 1-40 wide NS ns$.wide
$GENERATE 1-40 ns$.wide AAAA 2001:db8::$
`

const cdnZone = `$ORIGIN cdn.demo.test.
$TTL 300
@	IN SOA ns-ams1 hostmaster.demo.test. 9 7200 900 1209600 20
	IN NS ns-ams1
	IN NS ns-nyc1
ns-ams1	IN A 198.51.100.9
ns-nyc1	IN A 198.51.100.73
about	IN TXT "static"
alias	IN CNAME www
kept	IN A 192.0.2.77
`

// The client blocks of the fixture: one beside ams1, one beside nyc1; anybody
// else is taken to be nearest to tyo1.
const (
	euResolver   = "198.51.100.5"
	usResolver   = "203.0.113.5"
	elsewhere    = "192.0.2.200"
	euResolverV6 = "2001:db8:e::5"
)

// plan is what a test says of the fixture's fleet.
type plan struct {
	out     map[string]placement.Out // by site; a site not named is well
	failAll bool
	allDown placement.AllDown
	roles   map[string]placement.Mode
	mode    placement.Mode // of the services
	ecs     placement.ECS
	// ignoreECS is the policy's of all services.
	ignoreECS bool
	// https and svcb are those of service www.
	https, svcb *placement.Binding
	// elsewhere is the name of others who serve www in place of nyc1.
	elsewhere string
	// answers are those of the policy of www.
	answers placement.Answers
	// shared is an address that www has at nyc1, in place of its own ones.
	shared string
}

var fixtureSites = []placement.Site{
	{Name: "ams1", Region: "europe", Number: 1, Clusters: clusters("198.51.100.9", "2001:db8:a::9", "198.51.100.10 198.51.100.11 198.51.100.12 2001:db8:a::10")},
	{Name: "nyc1", Region: "america", Number: 2, Clusters: clusters("198.51.100.73", "2001:db8:b::9", "198.51.100.74 2001:db8:b::10 2001:db8:b::11")},
	{Name: "tyo1", Region: "asia", Number: 3, Clusters: clusters("198.51.100.137", "2001:db8:c::9", "198.51.100.138")},
}

func clusters(ns4, ns6, web string) []placement.Cluster {
	w := placement.Cluster{Name: "web"}
	for _, a := range strings.Fields(web) {
		w.Addresses = append(w.Addresses, netip.AddrPortFrom(netip.MustParseAddr(a), 443))
	}
	d := placement.Cluster{Name: "dns"}
	for _, a := range []string{ns4, ns6} {
		d.Addresses = append(d.Addresses, netip.AddrPortFrom(netip.MustParseAddr(a), 53))
	}
	return []placement.Cluster{d, w}
}

// fleet makes a Snapshot of three sites by hand.
func fleet(t testing.TB, p plan) *placement.Snapshot {
	t.Helper()
	var entries []lpm.Entry
	for prefix, class := range map[string]uint16{"198.51.100.0/24": 0, "2001:db8:e::/48": 0, "203.0.113.0/24": 1} {
		entries = append(entries, lpm.Entry{Prefix: netip.MustParsePrefix(prefix), Value: class})
	}
	table, err := lpm.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	inv := &placement.Inventory{Revision: 1, Fleet: placement.Fleet{
		Mode: placement.Act, Roles: p.roles, Sites: p.sites(), ECS: p.ecs,
		Policies: []placement.Policy{{Name: "nearest", Pick: 2, TTL: placement.Duration(20e9), AllDown: p.allDown, IgnoreECS: p.ignoreECS}},
		Services: []placement.Service{
			{Name: "ns", Clusters: []string{"dns"}, Policy: "nearest", Zone: "cdn.demo.test.", Mode: p.mode},
			{Name: "www", Clusters: []string{"web"}, Policy: "nearest", Mode: p.mode, HTTPS: p.https, SVCB: p.svcb,
				Names: []string{"www.cdn.demo.test.", "kept.cdn.demo.test.", "*.any.cdn.demo.test.", "cdn.demo.test."}},
		},
	}}
	s := &placement.Snapshot{
		Name: placement.Name{Plan: 1042, Votes: 17}, Inventory: inv, Plan: &placement.Plan{},
		Classes: &placement.ClassTable{Prefixes: table, Locations: make([]placement.Location, 2)},
	}
	for i := range inv.Services {
		svc := &inv.Services[i]
		m := placement.ServiceMap{Service: svc, Policy: &inv.Policies[0], Clusters: inv.Eligible(svc), Blocks: table.Fold([]uint32{0, 1}, 2)}
		for _, order := range [][]uint16{{0, 1, 2}, {1, 0, 2}, {2, 1, 0}} {
			m.Rows = append(m.Rows, p.row(m.Clusters, order))
		}
		if p.answers.Set() && svc.Name == "www" {
			p.several(s, svc, &m)
		}
		s.Maps = append(s.Maps, m)
	}
	return s
}

// several gives www a policy of its own, with answers of several clusters.
func (p *plan) several(s *placement.Snapshot, svc *placement.Service, m *placement.ServiceMap) {
	policy := *m.Policy
	policy.Name, policy.Answers, policy.Pick = "several", p.answers, p.answers.Nearest+p.answers.Random
	s.Inventory.Policies = append(s.Inventory.Policies, policy)
	svc.Policy, m.Policy, m.Keys = policy.Name, &policy, placement.ClusterKeys(m.Clusters)
	for _, row := range m.Rows {
		for k, c := range row.Candidates {
			if c.Out.Usable() && s.Inventory.CNAME(m.Clusters[c.Cluster]) == "" {
				row.Extras = append(row.Extras, placement.Extra{Candidate: uint16(k), Upto: 1000})
			}
		}
	}
	const divided = 1 << 31 // as lpm.SplitBase
	m.Blocks = s.Classes.Prefixes.Fold([]uint32{divided, divided + 1}, divided+2)
}

func (p *plan) sites() []placement.Site {
	out := slices.Clone(fixtureSites)
	if p.elsewhere != "" {
		out[1].Clusters = []placement.Cluster{out[1].Clusters[0], {Name: "web", CNAME: p.elsewhere}}
	}
	if p.shared != "" {
		out[1].Clusters = clusters("198.51.100.73", "2001:db8:b::9", p.shared)
	}
	return out
}

func (p *plan) row(clusters []placement.ClusterID, order []uint16) *placement.Row {
	r := &placement.Row{FailOpen: p.failAll}
	for i, c := range order {
		out := p.out[clusters[c].Site]
		if out == placement.In && len(r.Shares) > 0 {
			out = placement.OutFarther
		}
		if out == placement.In {
			r.Shares = []placement.Share{{Candidate: uint16(i), Upto: 1000}}
		}
		r.Candidates = append(r.Candidates, placement.Candidate{Cluster: c, Out: out, Cost: placement.Cost(100 * (i + 1))})
	}
	return r
}

var allOut = map[string]placement.Out{"ams1": placement.OutDown, "nyc1": placement.OutDown, "tyo1": placement.OutDown}

// sources are the zones of the fixture.
func sources() []Source {
	return []Source{
		{Zone: placement.Zone{Name: "demo.test.", Level: placement.TopLevel}, Data: []byte(demoZone)},
		{Zone: placement.Zone{Name: "cdn.demo.test.", Level: placement.LowLevel, NameServers: "ns"}, Data: []byte(cdnZone)},
	}
}

var self = identity{Site: "ams1", Node: "ams1-a", Version: "1.2", Idle: defaultIdle}

// compiled makes a state of sources and a Snapshot, which may be nil.
func compiled(t testing.TB, snap *placement.Snapshot, src ...Source) *state {
	t.Helper()
	return compile(self, zonesOf(t, src...), snap, nil)
}

// zonesOf parses sources as a Server does.
func zonesOf(t testing.TB, src ...Source) map[string]*loaded {
	t.Helper()
	zones := make(map[string]*loaded)
	for _, s := range src {
		z, err := zone.Parse(s.Zone.Name, s.Zone.Name, strings.NewReader(string(s.Data)))
		if err != nil {
			t.Fatal(err)
		}
		zones[s.Zone.Name] = &loaded{meta: s.Zone, zone: z, steered: s.Steered}
	}
	return zones
}

// ask makes a request from "NAME TYPE" and changes it.
func ask(t testing.TB, question string, change ...func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	f := strings.Fields(question)
	m.SetQuestion(f[0], dns.StringToType[f[1]])
	m.Id, m.RecursionDesired = 0x4242, false
	for _, c := range change {
		c(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func edns0(options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(4096, false)
		m.IsEdns0().Option = options
	}
}

// ecs makes a client subnet option from a prefix.
func ecs(prefix string) *dns.EDNS0_SUBNET {
	p := netip.MustParsePrefix(prefix)
	o := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: familyIPv4, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
	if p.Addr().Is6() {
		o.Family = familyIPv6
	}
	return o
}

func from(addr string, level placement.Level) asker {
	return asker{addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 5353), level: level}
}

// reply runs a request through a state and parses the answer, or returns nil for
// silence.
func (s *state) reply(t testing.TB, in []byte, a asker) *dns.Msg {
	t.Helper()
	out := make([]byte, maxTCP)
	n, _ := s.answer(in, out, a)
	if n == 0 {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(out[:n]); err != nil {
		t.Fatalf("the reply does not parse: %v\n%x", err, out[:n])
	}
	return m
}

// show writes a reply in one line, as tests compare it: RCODE, flags, the
// sections that are not empty, OPT.
func show(m *dns.Msg) string {
	if m == nil {
		return "silence"
	}
	var b strings.Builder
	b.WriteString(rcodeLabel(m.Rcode))
	for _, f := range []struct {
		set  bool
		name string
	}{{m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"}, {m.Zero, "z"}, {m.AuthenticatedData, "ad"}, {m.CheckingDisabled, "cd"}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		var rrs []string
		for _, rr := range section {
			if o, ok := rr.(*dns.OPT); ok {
				rrs = append(rrs, showOPT(o))
				continue
			}
			rrs = append(rrs, strings.ReplaceAll(strings.ReplaceAll(rr.String(), "\t", " "), " IN ", " "))
		}
		if len(rrs) > 0 {
			b.WriteString([]string{" | ", " ns ", " ar "}[i] + strings.Join(rrs, ", "))
		}
	}
	return b.String()
}

func showOPT(o *dns.OPT) string {
	s := fmt.Sprintf("OPT%d/%d", o.Version(), o.UDPSize())
	if o.Do() {
		s += " do"
	}
	for _, e := range o.Option {
		switch e := e.(type) {
		case *dns.EDNS0_SUBNET:
			s += fmt.Sprintf(" ecs=%d:%s/%d/%d", e.Family, e.Address, e.SourceNetmask, e.SourceScope)
		case *dns.EDNS0_EDE:
			s += fmt.Sprintf(" ede=%d", e.InfoCode)
		case *dns.EDNS0_NSID:
			s += " nsid=" + e.Nsid
		case *dns.EDNS0_COOKIE:
			s += " cookie=" + e.Cookie
		case *dns.EDNS0_PADDING:
			s += fmt.Sprintf(" padding=%d", len(e.Padding))
		case *dns.EDNS0_TCP_KEEPALIVE:
			s += fmt.Sprintf(" keepalive=%d", e.Timeout)
		default:
			s += fmt.Sprintf(" opt%d", e.Option())
		}
	}
	return s
}
