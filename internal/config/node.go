package config

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// The roles of a node.
const (
	RolePlacement = "placement"
	RoleAuthDNS   = "authdns"
	RoleBGP       = "bgp"
	RoleHealth    = "health"
	RoleEdge      = "edge"
	// RoleConsole watches the whole fleet and serves API and page; it acts on
	// nothing, so it may run on an operator's machine.
	RoleConsole = "console"
)

// Roles returns every role, in the order in which they start.
func Roles() []string {
	return []string{RolePlacement, RoleHealth, RoleAuthDNS, RoleBGP, RoleEdge, RoleConsole}
}

// Node is a node file: who this machine is.
type Node struct {
	Version int  `yaml:"version"`
	Node    Self `yaml:"node"`
	Listen  struct {
		Top   []netip.AddrPort `yaml:"top"`
		Low   []netip.AddrPort `yaml:"low"`
		Admin string           `yaml:"admin"` // directory of the units' unix sockets
		HTTP  string           `yaml:"http"`  // ADDRESS:PORT of API, metrics and page
		// TLS and Tokens guard HTTP; beyond loopback it is not served without.
		TLS    TLS    `yaml:"tls"`
		Tokens string `yaml:"tokens"` // file with names, roles and hashes of tokens
		DoT    DoT    `yaml:"dot"`
		DoH    DoH    `yaml:"doh"`
		DoQ    DoQ    `yaml:"doq"`
	} `yaml:"listen"`
	DNS   DNS   `yaml:"dns"`
	Store Store `yaml:"store"`
	// Identity is the directory made by `rhumb identity join`; empty in a
	// fleet of one site.
	Identity string `yaml:"identity"`
	BGP      *BGP   `yaml:"bgp"`
	// Edge is the part of role edge.
	Edge NodeEdge `yaml:"edge"`
	// VIP are the addresses that the nodes of this site share; nil: none.
	VIP *VIP `yaml:"vip"`
	// Machines of this site hear each other; nil: they do not.
	Machines *Machines `yaml:"machines"`
	Geo      struct {
		Databases []string `yaml:"databases"`
		// Routes are routing tables (MRT) by which clients are grouped.
		Routes []string `yaml:"routes"`
	} `yaml:"geo"`
	DNSSEC    DNSSEC    `yaml:"dnssec"`
	Transfers Transfers `yaml:"transfers"`
	// Scripts is the directory whose programs checks may run; empty: none. Who
	// may change the fleet must not thereby run programs of his choice here.
	Scripts string `yaml:"scripts"`
	// Twin makes it an input-delayed twin; nil: it takes everything at once.
	Twin *Twin `yaml:"twin"`
	// Mode overrides the fleet's mode on this node, downwards only: observe.
	Mode placement.Mode `yaml:"mode"`
}

// DNSSEC says with what this node signs.
type DNSSEC struct {
	// Keys is the directory of the key files of all signed zones.
	Keys string `yaml:"keys"`
	// Budget is how many RRsets of names that do not exist are signed in a second;
	// 4000 by default.
	Budget int `yaml:"budget"`
}

// maxSignBudget is more than a core can make.
const maxSignBudget = 1_000_000

// TLS names the files of the HTTP listener; all empty: in clear.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// Clients is the authority of client certificates; empty: none is asked for.
	Clients string `yaml:"clients"`
}

// Self names the node.
type Self struct {
	Name    string   `yaml:"name"`
	Site    string   `yaml:"site"`
	Roles   []string `yaml:"roles"`
	DataDir string   `yaml:"data_dir"`
}

// Store says where the fleet's state lives: etcd, embedded or not, or a file.
type Store struct {
	Etcd *Etcd  `yaml:"etcd"`
	File string `yaml:"file"` // path; `store: file` means state.json in data_dir
}

// UnmarshalYAML accepts the short form `store: file`.
func (s *Store) UnmarshalYAML(unmarshal func(any) error) error {
	var word string
	if unmarshal(&word) == nil && word == "file" {
		s.File = "state.json"
		return nil
	}
	type plain Store
	return unmarshal((*plain)(s))
}

// Etcd is either a set of embedded members by node name, or an existing cluster.
type Etcd struct {
	// Embedded maps node names to unicast addresses: one, three or five.
	Embedded  map[string]netip.Addr `yaml:"embedded"`
	Endpoints []string              `yaml:"endpoints"`
	// ClientPort and PeerPort of embedded members; 2379 and 2380 by default.
	ClientPort uint16 `yaml:"client_port"`
	PeerPort   uint16 `yaml:"peer_port"`
	// TLS says what is encrypted by the group's identities: require, auto, allow or
	// off; auto by default where there is an identity.
	TLS string `yaml:"tls"`
}

// The words of store.etcd.tls.
const (
	StoreTLSOff     = "off"     // nothing, as if there were no identity
	StoreTLSAllow   = "allow"   // what asks for it; a cluster in clear stays so, another goes back
	StoreTLSAuto    = "auto"    // everything, as soon as every node can
	StoreTLSRequire = "require" // everything, at once and always
)

// BGP is the speaker's part of a node file.
type BGP struct {
	ASN uint32 `yaml:"asn"`
	// MarkerASN administers the community by which sites know each other's
	// routes; it is set where every site has an AS of its own (RFC 6382).
	MarkerASN uint32     `yaml:"marker_asn"`
	RouterID  netip.Addr `yaml:"router_id"`
	Engine    string     `yaml:"engine"` // gobgp or kernel
	// Kernel says which routes the engine of that name writes.
	Kernel *Kernel `yaml:"kernel"`
	// Port is where sessions are accepted; 179 by default, -1 for none.
	Port            int                `yaml:"port"`
	Hold            placement.Duration `yaml:"hold"`
	GracefulRestart bool               `yaml:"graceful_restart"`
	Peers           []Peer             `yaml:"peers"`
	NextHop4        netip.Addr         `yaml:"next_hop4"`
	NextHop6        netip.Addr         `yaml:"next_hop6"`
	// MaxAnnounced is the ceiling of announced prefixes; 0 is none.
	MaxAnnounced int  `yaml:"max_announced"`
	RPKI         RPKI `yaml:"rpki"`
}

// RPKI says where the VRPs come from by which our own origins are judged: a
// validator's JSON file, or RTR caches (RFC 8210).
type RPKI struct {
	File   string             `yaml:"file"`
	RTR    []string           `yaml:"rtr"`     // HOST:PORT, the preferred one first
	MaxAge placement.Duration `yaml:"max_age"` // 24h by default
}

// On tells whether there is anything to judge by.
func (r *RPKI) On() bool { return r.File != "" || len(r.RTR) > 0 }

// Peer is a BGP neighbour.
type Peer struct {
	Addr         netip.Addr `yaml:"addr"`
	ASN          uint32     `yaml:"asn"`
	GTSM         bool       `yaml:"gtsm"`
	Multihop     int        `yaml:"multihop"` // TTL; 0: directly connected
	BFD          BFD        `yaml:"bfd"`
	Local        netip.Addr `yaml:"local"`   // to speak from; the routing table's choice by default
	Passive      bool       `yaml:"passive"` // wait for the neighbour to connect
	Probe        *PathProbe `yaml:"probe"`   // looks at the path behind the neighbour
	PasswordFile string     `yaml:"password_file"`
	Password     string     `yaml:"-"`
}

// LoadNode reads and checks a node file. The error joins every mistake found.
func LoadNode(file string) (*Node, error) {
	src, err := openSource(file)
	if err != nil {
		return nil, err
	}
	n := &Node{}
	if err := src.decode(n); err != nil {
		return nil, err
	}
	n.defaults(filepath.Dir(file))
	n.check(src)
	n.readPasswords(src)
	if err := src.err(); err != nil {
		return nil, err
	}
	return n, nil
}

// defaults fills in what was left out and makes paths absolute or relative to dir,
// the directory of the file: the same file means the same from wherever it is read.
func (n *Node) defaults(dir string) {
	if n.Node.DataDir == "" {
		n.Node.DataDir = "/var/lib/rhumb"
	}
	n.Node.DataDir = resolve(dir, n.Node.DataDir)
	if n.Listen.Admin == "" {
		n.Listen.Admin = "/run/rhumb"
	}
	n.Listen.Admin = resolve(dir, n.Listen.Admin)
	if n.Identity != "" {
		n.Identity = resolve(dir, n.Identity)
	}
	if n.DNSSEC.Keys != "" {
		n.DNSSEC.Keys = resolve(dir, n.DNSSEC.Keys)
	}
	if n.Scripts != "" {
		n.Scripts = resolve(dir, n.Scripts)
	}
	if n.Store.File != "" {
		n.Store.File = resolve(n.Node.DataDir, n.Store.File)
	}
	for _, file := range []*string{&n.Listen.TLS.Cert, &n.Listen.TLS.Key, &n.Listen.TLS.Clients, &n.Listen.Tokens, &n.Edge.Tokens} {
		if *file != "" {
			*file = resolve(dir, *file)
		}
	}
	for _, file := range []*string{&n.Transfers.Keys, &n.Transfers.CA, &n.Transfers.TLS.Cert, &n.Transfers.TLS.Key} {
		if *file != "" {
			*file = resolve(dir, *file)
		}
	}
	for _, files := range [][]string{n.Geo.Databases, n.Geo.Routes} {
		for i := range files {
			files[i] = resolve(dir, files[i])
		}
	}
	n.resolveDNS(dir)
	if e := n.Store.Etcd; e != nil {
		e.ClientPort, e.PeerPort = or(e.ClientPort, 2379), or(e.PeerPort, 2380)
		e.defaultTLS(n.Identity != "")
	}
	if n.Twin != nil {
		n.Twin.defaults()
	}
	if n.Machines != nil {
		n.Machines.Interval = or(n.Machines.Interval, placement.Duration(defaultPulse))
	}
	if b := n.BGP; b != nil {
		b.defaults()
		if b.RPKI.File != "" {
			b.RPKI.File = resolve(dir, b.RPKI.File)
		}
		for i := range b.Peers {
			b.Peers[i].BFD.defaults()
			if f := b.Peers[i].PasswordFile; f != "" {
				b.Peers[i].PasswordFile = resolve(dir, f)
			}
		}
	}
}

// check records every mistake in src. It reads nothing else: a node file can be
// checked on another machine than its own.
func (n *Node) check(src *source) {
	if n.Version != 1 {
		src.fail([]string{"version"}, "is %d; this binary reads version 1", n.Version)
	}
	for _, f := range []struct{ key, value string }{{"name", n.Node.Name}, {"site", n.Node.Site}} {
		if !isLabel(f.value) {
			src.fail([]string{"node", f.key}, "%q is not a name (lower-case letters, digits, hyphens)", f.value)
		}
	}
	if len(n.Node.Roles) == 0 {
		src.refuse(placement.RuleEmptySelector, []string{"node", "roles"}, "no role: this node would do nothing")
	}
	for _, r := range n.Node.Roles {
		if !slices.Contains(Roles(), r) {
			src.fail([]string{"node", "roles"}, "unknown role %q; roles are %s", r, strings.Join(Roles(), ", "))
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(n.Node.Roles)))) < len(n.Node.Roles) {
		src.fail([]string{"node", "roles"}, "a role stands twice")
	}
	n.checkStore(src)
	n.Transfers.check(src, n)
	n.checkListen(src)
	if b := n.DNSSEC.Budget; b < 0 || b > maxSignBudget {
		src.fail([]string{"dnssec", "budget"}, "%d: want 1 to %d signatures a second", b, maxSignBudget)
	}
	n.checkDNS(src)
	n.checkBGP(src)
	n.checkVIP(src)
	n.checkHandoff(src)
	n.checkMachines(src)
	n.checkTwin(src)
}

// checkListen checks the listeners. The level belongs to the address, so none may
// be both: it could neither refer nor answer.
func (n *Node) checkListen(src *source) {
	if slices.Contains(n.Node.Roles, RoleAuthDNS) && len(n.Listen.Top)+len(n.Listen.Low) == 0 {
		src.fail([]string{"listen"}, "role authdns needs a top or low address")
	}
	for _, set := range []struct {
		key  string
		list []netip.AddrPort
	}{{"top", n.Listen.Top}, {"low", n.Listen.Low}} {
		for i, a := range set.list {
			if !a.IsValid() || a.Port() == 0 || slices.Contains(set.list[:i], a) {
				src.fail([]string{"listen", set.key}, "%s stands twice, or is not ADDRESS:PORT", a)
			}
		}
	}
	n.checkHTTP(src)
	for _, a := range n.Listen.Top {
		if slices.Contains(n.Listen.Low, a) {
			src.fail([]string{"listen", "low"}, "%s is a top address too; the level belongs to the address", a)
		}
	}
}

// checkHTTP checks the HTTP listener. Whoever reaches it beyond loopback would read
// the fleet's state, and a token in clear is everybody's: both need TLS.
func (n *Node) checkHTTP(src *source) {
	l := &n.Listen
	host, _, err := net.SplitHostPort(l.HTTP)
	switch {
	case l.HTTP != "" && err != nil:
		src.fail([]string{"listen", "http"}, "%q is not ADDRESS:PORT", l.HTTP)
	case (l.TLS.Cert == "") != (l.TLS.Key == ""):
		src.fail([]string{"listen", "tls"}, "want cert and key, both")
	case l.TLS.Clients != "" && l.TLS.Cert == "":
		src.fail([]string{"listen", "tls"}, "clients needs cert and key")
	case l.HTTP == "" && (l.TLS.Cert != "" || l.Tokens != ""):
		src.fail([]string{"listen"}, "tls and tokens guard listen.http, which is missing")
	case l.HTTP == "" || isLoopback(host):
	case l.TLS.Cert == "":
		src.fail([]string{"listen", "http"}, "%q is reached from beyond this machine: that needs tls (cert, key), and tokens or tls.clients", l.HTTP)
	case l.Tokens == "" && l.TLS.Clients == "":
		src.fail([]string{"listen", "http"}, "%q is reached from beyond this machine: that needs tokens or tls.clients", l.HTTP)
	}
}

// isLoopback tells whether only this machine reaches a listener there; no host at all
// is every address.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// defaultTLS encrypts by the identity where there is one. An https:// endpoint is
// somebody else's etcd, which the machine's own authorities vouch for.
func (e *Etcd) defaultTLS(identity bool) {
	foreign := slices.ContainsFunc(e.Endpoints, func(url string) bool { return strings.HasPrefix(url, "https:") })
	switch {
	case e.TLS != "":
	case identity && !foreign:
		e.TLS = StoreTLSAuto
	default:
		e.TLS = StoreTLSOff
	}
}

// checkTLS checks how the store is encrypted.
func (e *Etcd) checkTLS(src *source, identity bool) {
	at := []string{"store", "etcd", "tls"}
	switch {
	case !slices.Contains([]string{StoreTLSOff, StoreTLSAllow, StoreTLSAuto, StoreTLSRequire}, e.TLS):
		src.fail(at, "%q: want require, auto, allow or off", e.TLS)
	case e.TLS != StoreTLSOff && !identity:
		src.fail(at, "%s needs an identity, made by `rhumb identity join`", e.TLS)
	}
}

// checkStore checks that there is exactly one store. Only etcd elects a director,
// so a file cannot carry the role placement.
func (n *Node) checkStore(src *source) {
	at := []string{"store"}
	if e := n.Store.Etcd; e != nil {
		e.checkTLS(src, n.Identity != "")
	}
	switch e := n.Store.Etcd; {
	case e == nil && n.Store.File == "":
		src.fail(at, "want etcd or file")
	case e != nil && n.Store.File != "":
		src.fail(at, "etcd and file exclude each other")
	case e != nil && (len(e.Embedded) == 0) == (len(e.Endpoints) == 0):
		src.fail([]string{"store", "etcd"}, "want either embedded or endpoints")
	case e != nil && len(e.Embedded) > 0 && len(e.Embedded)%2 == 0:
		src.fail([]string{"store", "etcd", "embedded"}, "%d members: want one, three or five, since an even one adds no quorum", len(e.Embedded))
	case e != nil && len(e.Embedded) > 5:
		src.fail([]string{"store", "etcd", "embedded"}, "%d members: want one, three or five", len(e.Embedded))
	case e != nil && slices.ContainsFunc(slices.Collect(maps.Values(e.Embedded)), func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }):
		src.fail([]string{"store", "etcd", "embedded"}, "each member needs the address at which the others reach it")
	case n.Store.File != "" && slices.Contains(n.Node.Roles, RolePlacement):
		src.fail([]string{"node", "roles"}, "role placement needs etcd; with store: file the other roles run alone")
	}
}

// checkBGP checks the speaker's part, where the node has the role.
func (n *Node) checkBGP(src *source) {
	if !slices.Contains(n.Node.Roles, RoleBGP) {
		return
	}
	if n.BGP == nil {
		src.fail([]string{"bgp"}, "role bgp needs this section")
		return
	}
	if n.BGP.ASN == 0 {
		src.fail([]string{"bgp", "asn"}, "is missing")
	}
	if !n.BGP.RouterID.Is4() {
		src.fail([]string{"bgp", "router_id"}, "want an IPv4 address (RFC 4271, 4.2)")
	}
	n.BGP.checkEngine(src)
	if n.BGP.GracefulRestart {
		src.refuse(placement.RuleGRWithHealth, []string{"bgp", "graceful_restart"},
			"a dead speaker would go on attracting traffic for the restart time")
	}
	if h := n.BGP.Hold.D(); h != 0 && (h.Seconds() < 3 || h.Seconds() > 65535) {
		src.fail([]string{"bgp", "hold"}, "%s: want 3s to 65535s (RFC 4271, 4.2)", h)
	}
	if n.BGP.Port < -1 || n.BGP.Port > 65535 {
		src.fail([]string{"bgp", "port"}, "%d: want a port, or -1 to accept no sessions", n.BGP.Port)
	}
	n.checkRPKI(src)
	n.checkPeers(src)
}

// checkRPKI checks where VRPs come from, and the ceiling.
func (n *Node) checkRPKI(src *source) {
	at := func(key string) []string { return []string{"bgp", "rpki", key} }
	if n.BGP.MaxAnnounced < 0 {
		src.fail([]string{"bgp", "max_announced"}, "%d: want a number of prefixes, or 0 for no ceiling", n.BGP.MaxAnnounced)
	}
	r := &n.BGP.RPKI
	if r.File != "" && len(r.RTR) > 0 {
		src.fail(at("rtr"), "file and rtr exclude each other")
	}
	for _, c := range r.RTR {
		if host, port, err := net.SplitHostPort(c); err != nil || host == "" || port == "" {
			src.fail(at("rtr"), "%q is not HOST:PORT", c)
		}
	}
	if age := r.MaxAge.D(); age != 0 && (age < time.Minute || !r.On()) {
		src.fail(at("max_age"), "%s: want at least 1m, and a file or rtr", r.MaxAge)
	}
}

// checkPeers checks the neighbours one by one; each is named by its address.
func (n *Node) checkPeers(src *source) {
	seen := make(map[netip.Addr]bool)
	for i, p := range n.BGP.Peers {
		at := []string{"bgp", "peers"}
		switch {
		case !p.Addr.IsValid():
			src.fail(at, "peer %d has no addr", i+1)
		case p.ASN == 0:
			src.fail(at, "peer %s has no asn", p.Addr)
		case p.Multihop < 0 || p.Multihop > 255:
			src.fail(at, "peer %s: multihop %d is no TTL", p.Addr, p.Multihop)
		case seen[p.Addr]:
			src.fail(at, "peer %s stands twice", p.Addr)
		case p.GTSM && p.Multihop > 0:
			src.fail(at, "peer %s: gtsm is for directly connected peers, not for multihop (RFC 5082)", p.Addr)
		case p.GTSM && p.ASN == n.BGP.ASN:
			src.fail(at, "peer %s: gtsm is for external peers", p.Addr)
		case p.Multihop > 0 && p.ASN == n.BGP.ASN:
			src.fail(at, "peer %s: multihop is for external peers; internal ones need none", p.Addr)
		case p.Local.IsValid() && p.Local.Is4() != p.Addr.Is4():
			src.fail(at, "peer %s: local %s is of the other family", p.Addr, p.Local)
		case p.Passive && n.BGP.Port < 0:
			src.fail(at, "peer %s: passive waits for a connection, but no port is open (bgp.port %d)", p.Addr, n.BGP.Port)
		}
		if p.Probe != nil && p.Addr.IsValid() {
			p.Probe.check(src, at, p.Addr, n.BGP.Engine)
		}
		if why := p.checkBFD(); why != "" && p.Addr.IsValid() {
			src.fail(at, "peer %s: %s", p.Addr, why)
		}
		seen[p.Addr] = true
	}
}

// maxPassword is the longest key that the kernel takes for TCP-MD5 (RFC 2385), in bytes.
const maxPassword = 80

// readPasswords reads the files that peers name. An empty one is a mistake: the
// session would run without the password which somebody meant it to have.
func (n *Node) readPasswords(src *source) {
	if n.BGP == nil {
		return
	}
	for i := range n.BGP.Peers {
		p := &n.BGP.Peers[i]
		if p.PasswordFile == "" {
			continue
		}
		b, err := os.ReadFile(p.PasswordFile)
		if err != nil {
			src.fail([]string{"bgp", "peers"}, "peer %s: password_file: %s", p.Addr, rootCause(err))
			continue
		}
		p.Password = strings.TrimSpace(string(b))
		if n := len(p.Password); n == 0 || n > maxPassword {
			src.fail([]string{"bgp", "peers"}, "peer %s: password_file holds %d bytes: want 1 to %d", p.Addr, n, maxPassword)
		}
	}
}

// Has tells whether the node runs a role.
func (n *Node) Has(role string) bool { return slices.Contains(n.Node.Roles, role) }

// resolve makes a path of a file relative to the file's directory.
func resolve(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// or returns v, or the default where v is the zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// isLabel accepts what may stand in a DNS label, a metric label and a key.
func isLabel(s string) bool {
	ok := len(s) > 0 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
	for _, c := range s {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	return ok
}
