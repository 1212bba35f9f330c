package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"math/big"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rhumb/placement"
)

// builder turns fleet documents into a placement.Fleet. Every entry remembers
// the document it came from, so that a mistake names its own file and line.
type builder struct {
	docs   []*document
	out    *Fleet
	zoneOf map[string]string // static owner name → zone
	// taken says of each zone with a file where that answers by itself.
	taken map[string]func(name string) bool
	// signedAt is where a zone that its owner has signed shows it, by zone.
	signedAt map[string]string
	// read reads a file that a document names (zones, certificates).
	read func(file string) ([]byte, error)
}

func newBuilder(read func(string) ([]byte, error)) *builder {
	return &builder{zoneOf: make(map[string]string), taken: make(map[string]func(string) bool), out: &Fleet{Blobs: make(map[string][]byte)}, read: read}
}

// document is one file and what it says.
type document struct {
	*source
	fleetFile
	dir string
}

// open reads a document from its file.
func (b *builder) open(file string, first bool) error {
	src, err := openSource(file)
	if err != nil {
		return err
	}
	return b.add(src, first)
}

// add takes a document; the first one is the fleet file itself.
func (b *builder) add(src *source, first bool) error {
	d := &document{source: src, dir: filepath.Dir(src.file)}
	if err := src.decode(&d.fleetFile); err != nil {
		return err
	}
	if first && d.Version != 1 {
		src.fail([]string{"version"}, "is %d; this binary reads version 1", d.Version)
	}
	for _, key := range []string{"mode", "roles", "ecs", "safety", "recovery", "revoked", "rtt"} {
		if !first && src.has(key) {
			src.fail([]string{key}, "belongs into %s: it is one for the whole fleet", b.docs[0].file)
		}
	}
	b.docs = append(b.docs, d)
	return nil
}

// err joins the mistakes of all documents, in the order of the documents.
func (b *builder) err() error {
	var errs []error
	for _, d := range b.docs {
		errs = append(errs, d.errs...)
	}
	return errors.Join(errs...)
}

// entries calls f for each entry of a section in every document, in order of
// key; a key which stands in two documents is a mistake of the second.
func entries[T any](b *builder, section string, get func(*document) map[string]T, f func(*document, string, T)) {
	seen := make(map[string]string)
	for _, d := range b.docs {
		for _, key := range slices.Sorted(maps.Keys(get(d))) {
			if other, dup := seen[key]; dup {
				d.fail([]string{section, key}, "stands in %s too", other)
				continue
			}
			seen[key] = d.file
			f(d, key, get(d)[key])
		}
	}
}

// build goes through the sections in the order in which they refer to each other:
// a policy names sites, a service names policies and must not own static names.
func (b *builder) build(zones ZoneReader) {
	root := b.docs[0]
	f := &b.out.Fleet
	f.Version, f.Mode = 1, root.Mode.Or(placement.Observe)
	f.Roles = make(map[string]placement.Mode)
	for role, r := range root.Roles {
		if !slices.Contains(Roles(), role) {
			root.fail([]string{"roles", role}, "unknown role; roles are %s", strings.Join(Roles(), ", "))
		}
		f.Roles[role] = r.Mode
	}
	entries(b, "sites", func(d *document) map[string]siteFile { return d.Sites }, b.site)
	entries(b, "checks", func(d *document) map[string]checkFile { return d.Checks }, b.check)
	entries(b, "policies", func(d *document) map[string]policyFile { return d.Policies }, b.policy)
	b.zones(zones)
	entries(b, "services", func(d *document) map[string]serviceFile { return d.Services }, b.service)
	entries(b, "prefixes", func(d *document) map[string]prefixFile { return d.Prefixes }, b.prefix)
	entries(b, "clients", func(d *document) map[string]clientFile { return d.Clients }, b.client)
	b.rest(root)
	b.sort()
	b.refer()
}

// rest is what the fleet file alone says.
func (b *builder) rest(root *document) {
	b.revoked(root)
	b.recovery(root)
	b.rtt(root)
	f := &b.out.Fleet
	f.ECS = placement.ECS{Off: root.ECS.Off, Bits4: or(root.ECS.Bits4, 24), Bits6: or(root.ECS.Bits6, 56)}
	if f.ECS.Bits4 < 0 || f.ECS.Bits4 > 32 || f.ECS.Bits6 < 0 || f.ECS.Bits6 > 128 {
		root.fail([]string{"ecs"}, "bits are out of range (RFC 7871, 6)")
	}
	s := &root.Safety
	f.Safety = placement.Safety{MinSites: deref(s.MinSites, 2), MaxDrains: deref(s.MaxDrains, 1),
		MinHeadroom: deref(s.MinHeadroom, 0.15), MaxAnswerChange: deref(s.MaxAnswerChange, 0.4),
		KeepNames: or(root.Zones.KeepNamesRatio, 0.7)}
	for _, r := range []struct {
		key string
		v   float64
	}{{"min_headroom", f.Safety.MinHeadroom}, {"max_answer_change", f.Safety.MaxAnswerChange}} {
		if !isPart(r.v) {
			root.fail([]string{"safety", r.key}, "%v is not a part between 0 and 1", r.v)
		}
	}
	if !isPart(f.Safety.KeepNames) {
		root.fail([]string{"zones", "keep_names_ratio"}, "%v is not a part between 0 and 1", f.Safety.KeepNames)
	}
	if f.Safety.MinSites < 0 || f.Safety.MaxDrains < 0 {
		root.fail([]string{"safety"}, "min_sites and max_drains are counts")
	}
}

// recovery takes how what failed comes back. Nothing said is nothing kept, so that a
// later default holds for fleets which never chose.
func (b *builder) recovery(root *document) {
	r, d := &root.Recovery, placement.DefaultRecovery()
	if *r == (recoveryFile{}) {
		return
	}
	floor := deref(r.Floor, float64(d.Floor)/1000)
	if !isPart(floor) {
		root.fail([]string{"recovery", "floor"}, "%v is not a part between 0 and 1", floor)
	}
	out := placement.Recovery{Delay: deref(r.Delay, d.Delay), Ramp: deref(r.Ramp, d.Ramp),
		Floor: int(floor*1000 + 0.5), HalfLife: deref(r.HalfLife, d.HalfLife)}
	if out.HalfLife.D() < time.Second {
		root.fail([]string{"recovery", "half_life"}, "%s: want at least 1s", out.HalfLife)
	}
	b.out.Recovery = &out
}

// isPart also refuses NaN, which YAML can say and which every comparison fails.
func isPart(v float64) bool { return v >= 0 && v <= 1 }

// revoked brings the serials into the one form in which certificates are compared
// with them.
func (b *builder) revoked(root *document) {
	for _, text := range root.Revoked {
		n, ok := new(big.Int).SetString(strings.ReplaceAll(text, ":", ""), 16)
		if !ok || n.Sign() <= 0 || n.BitLen() > 160 {
			root.fail([]string{"revoked"}, "%q is not a serial number in hex (RFC 5280, 4.1.2.2)", text)
			continue
		}
		b.out.Revoked = append(b.out.Revoked, n.Text(16))
	}
	slices.Sort(b.out.Revoked)
	b.out.Revoked = slices.Compact(b.out.Revoked)
}

// site takes one entry of sites. A wrong one is kept all the same, so that what
// refers to it does not fail for a reason that is none.
func (b *builder) site(d *document, name string, s siteFile) {
	at := []string{"sites", name}
	if !isLabel(name) {
		d.fail(at, "%q is not a name (lower-case letters, digits, hyphens)", name)
	}
	out := placement.Site{Name: name, City: s.City, Region: or(s.Region, name), Number: s.Number,
		Domains: s.Domains, Beat: s.Beat, SecondBeat: s.Second, Edge: s.Edge, QUICID: s.QUICID, Relay: d.relay(at, s.Relay), Sessions: d.sessions(at, s.Sessions)}
	if s.At == nil {
		d.fail(at, "needs a position: at: [latitude, longitude]")
	} else {
		out.At = placement.Position(*s.At)
		d.checkPosition(append(at, "at"), out.At)
	}
	if s.Number == 0 && !s.foreign() {
		d.fail(at, "needs a number (1..65535): it marks the site's routes")
	}
	if s.Second.IsValid() && (!s.Beat.IsValid() || s.Second == s.Beat) {
		d.fail(append(at, "second_beat"), "is that of a second machine: the first has another one, beat")
	}
	if s.Identity != "" {
		pem, err := b.read(resolve(d.dir, s.Identity))
		if err != nil {
			d.fail(append(at, "identity"), "%s", rootCause(err))
		}
		out.Identity = string(pem)
	}
	out.Nodes = d.edgeNodes(at, &s)
	for _, c := range slices.Sorted(maps.Keys(s.Clusters)) {
		out.Clusters = append(out.Clusters, d.cluster(at, c, s.Clusters[c]))
	}
	b.out.Sites = append(b.out.Sites, out)
}

// maxRelay in Mbit/s is more than any tunnel carries.
const maxRelay = 100_000

// relay reads what a site passes on for others: in octets a second, less than 0 where it
// shall pass on nothing.
func (d *document) relay(at []string, mbit *int64) int64 {
	switch {
	case mbit == nil:
		return 0
	case *mbit < 0 || *mbit > maxRelay:
		d.fail(append(slices.Clone(at), "relay_mbit"), "%d: want 0 (nothing) to %d", *mbit, maxRelay)
		return 0
	case *mbit == 0:
		return -1
	}
	return *mbit * 1_000_000 / 8
}

// checkPosition refuses what is no place on earth: the likeliest cause is longitude
// before latitude, and distance costs of such a point would steer a continent wrong.
func (d *document) checkPosition(at []string, p placement.Position) {
	if !(p.Lat() >= -90 && p.Lat() <= 90 && p.Lon() >= -180 && p.Lon() <= 180) { // so that NaN fails
		d.fail(at, "[%v, %v] is no place on earth: want [latitude, longitude]", p.Lat(), p.Lon())
	}
}

// cluster takes one cluster of a site.
func (d *document) cluster(site []string, name string, c clusterFile) placement.Cluster {
	at := append(slices.Clone(site), "clusters", name)
	switch {
	case !isLabel(name):
		d.fail(at, "%q is not a name (lower-case letters, digits, hyphens)", name)
	case c.CNAME != "":
		d.checkAlias(append(at, "cname"), c)
	case len(c.Addresses) == 0:
		d.refuse(placement.RuleEmptySelector, at, "has no addresses")
	case c.CapacityQPS < 0:
		d.fail(append(at, "capacity_qps"), "%d is negative", c.CapacityQPS)
	}
	for i, a := range c.Addresses {
		if !usable(a) || slices.Contains(c.Addresses[:i], a) {
			d.fail(append(at, "addresses"), "%s stands twice, or is no address to which a client could connect", a)
		}
	}
	out := placement.Cluster{Name: name, Addresses: c.Addresses, Capacity: c.CapacityQPS, Check: c.Check}
	if c.CNAME != "" {
		out.CNAME = fqdn(c.CNAME)
	}
	return out
}

// usable tells whether an address with a port can stand in an answer.
func usable(a netip.AddrPort) bool {
	ip := a.Addr()
	return a.IsValid() && a.Port() > 0 && ip.Zone() == "" && !ip.Is4In6() && !ip.IsUnspecified() && !ip.IsMulticast()
}

// policy takes one entry of policies; parts become per mille, rounded.
func (b *builder) policy(d *document, name string, p policyFile) {
	at := []string{"policies", name}
	out := placement.Policy{Name: name, Pick: or(p.Pick, 2), TTL: placement.Duration(p.TTL.Or(20 * time.Second)), AllDown: or(p.AllDown, placement.FailOpen), IgnoreECS: p.IgnoreECS, SkipFirst: p.SkipFirst}
	headroom := or(p.Headroom, 0.9)
	out.Headroom = int(headroom*1000 + 0.5)
	if !isPart(headroom) {
		d.fail(append(at, "headroom"), "%v is not a part between 0 and 1", headroom)
	}
	if out.Pick < 1 || out.Pick > 8 {
		d.fail(append(at, "pick"), "%d addresses: want 1 to 8", out.Pick)
	}
	if p.Answers != nil {
		b.answers(d, at, &p, &out)
	}
	if out.SkipFirst < 0 || out.SkipFirst > 7 {
		d.fail(append(at, "skip_first"), "%d choices: want 0 to 7", out.SkipFirst)
	}
	if !slices.Contains(placement.AllDowns(), out.AllDown) {
		d.fail(append(at, "all_down"), "%q: want fail_open, nodata, servfail, refuse, static, last_good, all or closest", out.AllDown)
	}
	if p.Choose != nil {
		out.Choose = b.branch(d, append(at, "choose"), *p.Choose)
	}
	b.out.Policies = append(b.out.Policies, out)
}

// answers takes how many of the clusters in an answer come by nearness, and how many by
// lot. Each gives one address of a family, so that pick has nothing left to say.
func (b *builder) answers(d *document, at []string, p *policyFile, out *placement.Policy) {
	at = append(slices.Clone(at), "answers")
	a := placement.Answers{Nearest: 1, Random: p.Answers.Random}
	if p.Answers.Nearest != nil {
		a.Nearest = *p.Answers.Nearest
	}
	switch sum := a.Nearest + a.Random; {
	case a.Nearest < 1:
		d.fail(append(at, "nearest"), "%d clusters: want at least the one that serves", a.Nearest)
	case a.Random < 0:
		d.fail(append(at, "random"), "%d clusters: want 0 or more", a.Random)
	case sum < 2 || sum > placement.MaxAnswers:
		d.fail(at, "%d clusters in an answer: want 2 to %d; leave the key out for one", sum, placement.MaxAnswers)
	case p.Pick != 0:
		d.fail(append(at[:len(at)-1:len(at)-1], "pick"), "with answers each cluster gives one address; leave pick out")
	case p.SkipFirst != 0:
		d.fail(append(at[:len(at)-1:len(at)-1], "skip_first"), "passes over a choice that answers would add again; want one of the two")
	}
	out.Answers, out.Pick = a, min(max(1, a.Nearest+a.Random), placement.MaxAnswers)
}

// branch takes a node of a policy tree and all below it. A geo branch must say what
// clients get whose place is not known or not named: they are never nobody.
func (b *builder) branch(d *document, at []string, f branchFile) placement.Branch {
	out := placement.Branch{Sites: f.Sites}
	kinds := 0
	for _, key := range []string{"sites", "geo", "failover", "weighted"} {
		if d.has(append(slices.Clone(at), key)...) {
			kinds++
		}
	}
	if d.has(append(slices.Clone(at), "sites")...) && len(f.Sites) == 0 {
		d.refuse(placement.RuleEmptySelector, append(at, "sites"), "names no site; leave the key out to mean every site")
	}
	if kinds > 1 {
		d.fail(at, "has %d kinds; want one of sites, geo, failover, weighted", kinds)
	}
	for _, s := range f.Sites {
		if b.out.Site(s) == nil {
			d.fail(append(at, "sites"), "there is no site %q", s)
		}
	}
	if len(f.Geo) > 0 {
		out.Geo = make(map[string]placement.Branch)
		if _, ok := f.Geo["*"]; !ok {
			d.fail(append(at, "geo"), `needs a branch "*" for all other clients`)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(f.Geo)) {
		out.Geo[k] = b.branch(d, append(slices.Clone(at), "geo", k), f.Geo[k])
	}
	for _, br := range f.Failover {
		out.Failover = append(out.Failover, b.branch(d, append(slices.Clone(at), "failover"), br))
	}
	for _, w := range f.Weighted {
		if w.Weight <= 0 {
			d.fail(append(at, "weighted"), "weight %d: want at least 1", w.Weight)
		}
		out.Weighted = append(out.Weighted, placement.Weighted{Weight: w.Weight, Branch: b.branch(d, append(slices.Clone(at), "weighted"), deref(w.To, branchFile{}))})
	}
	return out
}

// zones takes the zones of every document; a relative dir is the document's own.
func (b *builder) zones(read ZoneReader) {
	dirs := make(map[string]string)
	get := func(d *document) map[string]zoneFile {
		if d.Zones.Dir != "" {
			dirs[d.file] = resolve(d.dir, d.Zones.Dir)
		}
		return d.Zones.Serve
	}
	entries(b, "zones", get, func(d *document, name string, z zoneFile) {
		b.zone(d, name, z, or(dirs[d.file], filepath.Join(d.dir, "zones")), read)
	})
}

// zone reads a master file, keeps it as a blob by its digest, and remembers its
// names, since a name is either static or steered. Name servers chosen per
// resolver become a service of their own, named ns/ZONE.
func (b *builder) zone(d *document, name string, z zoneFile, dir string, read ZoneReader) {
	at := []string{"zones", "serve", name}
	out := placement.Zone{Name: fqdn(name), Level: or(z.Level, placement.LowLevel)}
	if out.Level != placement.TopLevel && out.Level != placement.LowLevel {
		d.fail(append(at, "level"), "%q: want top or low", z.Level)
	}
	switch z.DNSSEC {
	case "", "off":
	case "on":
		out.DNSSEC = placement.Online
	default:
		d.fail(append(at, "dnssec"), "%q: want on or off", z.DNSSEC)
	}
	d.otherKeys(append(at, "other_keys"), &out, z.OtherKeys)
	out.Transfer, out.Secondary = z.Transfer.build(d, append(at, "transfer")), z.Secondary.build(d, append(at, "secondary"))
	out.Catalog = z.Catalog.build(d, append(at, "catalog"), out.Name, z)
	out.Listed = z.Listed.build(d, append(at, "listed"), z)
	switch {
	case out.Secondary == nil && out.Catalog != nil:
	case out.Secondary == nil && !b.zoneFile(d, at, &out, z, resolve(dir, or(z.File, strings.TrimSuffix(out.Name, ".")+".zone")), read):
		return
	case out.Secondary != nil && z.File != "":
		d.fail(append(at, "file"), "a secondary has no file: its primaries send it")
	}
	if ns := z.NameServers; ns != nil {
		out.NameServers = "ns/" + strings.TrimSuffix(out.Name, ".")
		b.out.Services = append(b.out.Services, placement.Service{Name: out.NameServers, Zone: out.Name,
			Clusters: ns.Clusters, Policy: ns.Policy, Check: ns.Check, TTL: placement.Duration(ns.TTL.Or(time.Hour))})
		b.checkNameServers(d, append(at, "name_servers"), ns)
	}
	out.Aliases = d.aliases(append(at, "aliases"), z.Aliases)
	b.out.Zones = append(b.out.Zones, out)
}

// zoneFile reads a zone's master file; false where it is wrong.
func (b *builder) zoneFile(d *document, at []string, out *placement.Zone, z zoneFile, file string, read ZoneReader) bool {
	data, err := b.read(file)
	if err != nil {
		d.fail(at, "%s: %s", file, rootCause(err))
		return false
	}
	info, err := read(out.Name, file, data)
	if err != nil {
		d.errs = append(d.errs, err)
		return false
	}
	sum := sha256.Sum256(data)
	out.SHA256, out.Size, out.Names, out.Serial = hex.EncodeToString(sum[:]), len(data), len(info.Names), info.Serial
	for _, n := range info.Names {
		b.zoneOf[n] = out.Name
	}
	if b.taken[out.Name] = info.Taken; info.Taken == nil {
		b.taken[out.Name] = func(string) bool { return false }
	}
	if info.Signed != "" {
		b.presigned(d, at, out, info.Signed, z)
	}
	b.out.Blobs[out.SHA256] = data
	return true
}

// checkNameServers holds the rules of a steered NS set at the earliest point: a
// resolver that knows a dead region alone does not come back before the TTL ends.
// The upper bound keeps that below 67 minutes.
func (b *builder) checkNameServers(d *document, at []string, ns *nameServersFile) {
	if len(ns.Clusters) == 0 {
		d.refuse(placement.RuleEmptySelector, append(at, "clusters"), "names no cluster")
	}
	if ttl := ns.TTL.Or(time.Hour); ttl < time.Minute || ttl > 4000*time.Second {
		d.fail(append(at, "ttl"), "%s: want 1m to 4000s", ttl)
	}
	if i := slices.IndexFunc(b.out.Policies, func(p placement.Policy) bool { return p.Name == ns.Policy }); i >= 0 && b.out.Policies[i].Answers.Set() {
		d.fail(append(at, "policy"), "policy %s has answers, which are of addresses; how many name servers are told is its pick", ns.Policy)
	}
	regions := make(map[string]bool)
	for _, s := range b.out.Sites {
		for _, c := range s.Clusters {
			if slices.Contains(ns.Clusters, c.Name) {
				regions[s.Region] = true
			}
		}
	}
	if len(regions) == 1 && len(b.out.Sites) > 1 {
		d.refuse(placement.RuleOneFate, at, "every name server lies in one region: when it dies, resolvers stay without the zone until the NS TTL ends")
	}
}

// maxPerQuery is more requests than any cache stands for: at a thousand a second, a
// quarter of an hour of one resolver's clients.
const maxPerQuery = 1_000_000

// service takes one entry of services.
func (b *builder) service(d *document, name string, s serviceFile) {
	at := []string{"services", name}
	out := placement.Service{Name: name, Clusters: s.Clusters, Sites: s.Sites, Policy: s.Policy,
		Check: s.Check, TTL: s.TTL, Mode: s.Mode, Demand: s.Demand, PerQuery: s.PerQuery,
		HTTPS: s.HTTPS.build(d, append(at, "https"), s.Names), SVCB: s.SVCB.build(d, append(at, "svcb"), s.Names)}
	if !isLabel(name) {
		d.fail(at, "%q is not a name (lower-case letters, digits, hyphens)", name)
	}
	if s.PerQuery < 0 || s.PerQuery > maxPerQuery {
		d.fail(append(at, "per_query"), "%d: want 1 to %d requests for each query, or 0: what is measured counts for no plan", s.PerQuery, maxPerQuery)
	}
	for _, n := range s.Names {
		out.Names = append(out.Names, fqdn(n))
	}
	for _, sel := range []struct {
		key  string
		list []string
	}{{"clusters", s.Clusters}, {"sites", s.Sites}, {"names", s.Names}} {
		if len(sel.list) == 0 && (sel.key == "clusters" || d.has("services", name, sel.key)) {
			d.refuse(placement.RuleEmptySelector, append(at, sel.key), "is empty: an empty selector matches nothing")
		}
	}
	if e := s.Edge; e != nil {
		out.Edge = &placement.Edge{Kind: e.Kind, Mode: e.Mode, VIPs: e.VIPs, Origin: e.Origin, Root: e.Root,
			Revival: e.Revival, Freshness: e.Freshness,
			Cert: e.TLS.Cert, Key: e.TLS.Key, ExportSecrets: e.Export, Events: e.Events.Path, EventsStrict: e.Events.Strict,
			Uploads: e.Uploads.Dir, UploadMB: e.Uploads.MaxMB}
		d.checkEdge(append(at, "edge"), e)
		if e.QUIC != nil {
			out.Edge.QUIC = e.QUIC.Owner
			d.checkQUIC(append(at, "edge"), e)
		}
		d.checkEdgeTLS(append(at, "edge"), e)
		d.checkEvents(append(at, "edge", "events"), e)
		d.checkUploads(append(at, "edge"), e)
	}
	b.out.Services = append(b.out.Services, out)
}

// checkEdge checks the kind of an edge service and what that kind needs.
func (d *document) checkEdge(at []string, e *edgeFile) {
	switch {
	case e.Kind == "proxy":
		d.fail(append(at, "kind"), "proxy is not in this version; forward keeps sessions of any server alive")
	case e.Kind != placement.Forward && e.Kind != placement.Handoff && e.Kind != placement.Content:
		d.fail(append(at, "kind"), "%q: want forward, handoff or content", e.Kind)
	case e.Kind == placement.Handoff && e.Root != "":
		d.fail(append(at, "root"), "is for content: sessions of kind handoff are served by a server of your own")
	case e.Kind == placement.Handoff && e.Origin != "":
		d.fail(append(at, "origin"), "is for content: sessions of kind handoff are served by a server of your own")
	case e.Kind == placement.Content && (e.Root == "") == (e.Origin == ""):
		d.fail(at, "content needs exactly one of root and origin")
	case e.Kind != placement.Content && e.Freshness != "":
		d.fail(append(at, "freshness"), "is for content: records are kept of our own server's sessions only")
	case e.Freshness != "" && e.Freshness != placement.FreshL0 && e.Freshness != placement.FreshL1 && e.Freshness != placement.FreshL2:
		d.fail(append(at, "freshness"), "%q: want L0, L1 or, with uploads, L2", e.Freshness)
	case e.Kind != placement.Content && e.Revival != "":
		d.fail(append(at, "revival"), "is for content: sessions of other servers end with them")
	case e.Revival != "" && e.Revival != placement.ReviveOff && e.Revival != placement.ReviveObserve && e.Revival != placement.ReviveAct:
		d.fail(append(at, "revival"), "%q: want off, observe or act", e.Revival)
	}
	if len(e.VIPs) == 0 {
		d.refuse(placement.RuleEmptySelector, append(at, "vips"), "names no address")
	}
}

// checkEdgeTLS checks what a service says of its TLS. Only our own server ends any.
func (d *document) checkEdgeTLS(at []string, e *edgeFile) {
	has := e.TLS.Cert != "" || e.TLS.Key != ""
	switch {
	case e.Kind != placement.Content && (has || e.Export != ""):
		d.fail(at, "kind %s ends no TLS: tls and export_secrets are for content", e.Kind)
	case (e.TLS.Cert == "") != (e.TLS.Key == ""):
		d.fail(append(at, "tls"), "want cert and key, both")
	case e.Export != "" && e.Export != placement.ExportNone && e.Export != placement.ExportSite && e.Export != placement.ExportGroup:
		d.fail(append(at, "export_secrets"), "%q: want none, site or group", e.Export)
	case e.Export != "" && e.Export != placement.ExportNone && !has:
		d.fail(append(at, "export_secrets"), "there are no secrets without tls (cert, key)")
	}
}

// prefix takes one entry of prefixes. A prefix which the Internet filters by its
// length would look announced to us and be heard by nobody.
func (b *builder) prefix(d *document, text string, p prefixFile) {
	at := []string{"prefixes", text}
	pre, err := netip.ParsePrefix(text)
	if err != nil {
		d.fail(at, "is not a prefix (ADDRESS/BITS)")
		return
	}
	if pre != pre.Masked() {
		d.fail(at, "has bits behind its length; the net is %s", pre.Masked())
	}
	out := placement.Prefix{Prefix: pre, Reach: or(p.Reach, placement.Global), Sites: p.Sites, Clusters: p.Clusters,
		Slots: deref(p.Slots, 1), MinAnnouncing: p.MinAnnouncing, Prepend: or(p.Drain.Prepend, 3), MED: or(p.Drain.MED, 500),
		Witness: or(p.Witness, placement.WitnessAdvisory), Mode: p.Mode}
	if out.Reach != placement.Global && out.Reach != placement.Local {
		d.fail(append(at, "reach"), "%q: want global or local", p.Reach)
	}
	if b.out.Prefix(pre) != nil {
		d.fail(at, "stands twice, in two spellings")
	}
	if p.MinAnnouncing < 0 || out.Slots < 0 || out.Prepend < 0 || out.Prepend > 32 {
		d.fail(at, "slots and min_announcing are counts, prepend is one up to 32")
	}
	if out.Reach == placement.Global && (pre.Addr().Is4() && pre.Bits() > 24 || pre.Addr().Is6() && pre.Bits() > 48) {
		d.fail(at, "the Internet carries nothing longer than /24 or /48; use reach: local under a global cover")
	}
	for _, sel := range []struct {
		key  string
		list []string
	}{{"sites", p.Sites}, {"clusters", p.Clusters}} {
		if len(sel.list) == 0 && d.has("prefixes", text, sel.key) {
			d.refuse(placement.RuleEmptySelector, append(at, sel.key), "is empty: an empty selector matches nothing")
		}
	}
	if !slices.Contains([]placement.Witness{placement.WitnessAdvisory, placement.WitnessRequired, placement.WitnessOff}, out.Witness) {
		d.fail(append(at, "witness"), "%q: want advisory, required or off", p.Witness)
	}
	b.out.Prefixes = append(b.out.Prefixes, out)
}

// client takes one entry of clients.
func (b *builder) client(d *document, text string, c clientFile) {
	at := []string{"clients", text}
	out, ok := clientKey(text)
	if !ok {
		d.fail(at, "is neither a prefix (ADDRESS/BITS without bits behind its length) nor an AS (AS64510)")
		return
	}
	if c.At == nil {
		d.fail(at, "needs a position: at: [latitude, longitude]")
		return
	}
	out.Location = placement.Location{Country: c.Country, Continent: c.Continent, Region: c.Region, At: placement.Position(*c.At)}
	d.checkPosition(append(at, "at"), out.Location.At)
	b.out.Overrides = append(b.out.Overrides, out)
}

// clientKey reads a prefix or an AS, each in its one spelling: 64510 written twice
// in two ways would be two keys.
func clientKey(text string) (placement.Override, bool) {
	if number, ok := strings.CutPrefix(text, "AS"); ok {
		as, err := strconv.ParseUint(number, 10, 32)
		o := placement.Override{AS: uint32(as)}
		return o, err == nil && as != 0 && o.Name() == text
	}
	pre, err := netip.ParsePrefix(text)
	return placement.Override{Prefix: pre}, err == nil && pre == pre.Masked()
}

// sort brings every list into the order of its names, so that equal fleets are
// equal byte for byte whatever files they came from.
func (b *builder) sort() {
	f := &b.out.Fleet
	slices.SortFunc(f.Sites, func(x, y placement.Site) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(f.Checks, func(x, y placement.Check) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(f.Policies, func(x, y placement.Policy) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(f.Services, func(x, y placement.Service) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(f.Zones, func(x, y placement.Zone) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(f.Prefixes, func(x, y placement.Prefix) int { return comparePrefix(x.Prefix, y.Prefix) })
	slices.SortFunc(f.Overrides, func(x, y placement.Override) int {
		return cmp.Or(comparePrefix(x.Prefix, y.Prefix), cmp.Compare(x.AS, y.AS))
	})
}

// comparePrefix orders by address, then by length.
func comparePrefix(x, y netip.Prefix) int {
	return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
}

// fqdn returns a name as it stands everywhere behind this package: lower case, with
// the root's dot.
func fqdn(name string) string {
	name = strings.ToLower(name)
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	return name
}

// deref returns what a pointer of a file type holds, or the default where the key
// was left out.
func deref[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
