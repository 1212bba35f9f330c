package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"rhumb/placement"
)

// fleetFile mirrors a fleet document; sites/*.yaml and services/*.yaml hold
// documents of the same shape which are laid over it.
type fleetFile struct {
	Version  int                    `yaml:"version"`
	Mode     placement.Mode         `yaml:"mode"`
	Roles    map[string]roleFile    `yaml:"roles"`
	Zones    zonesFile              `yaml:"zones"`
	Sites    map[string]siteFile    `yaml:"sites"`
	Checks   map[string]checkFile   `yaml:"checks"`
	Policies map[string]policyFile  `yaml:"policies"`
	Services map[string]serviceFile `yaml:"services"`
	Prefixes map[string]prefixFile  `yaml:"prefixes"`
	Clients  map[string]clientFile  `yaml:"clients"`
	RTT      string                 `yaml:"rtt"` // file of measured round trips
	ECS      ecsFile                `yaml:"ecs"`
	Safety   safetyFile             `yaml:"safety"`
	Recovery recoveryFile           `yaml:"recovery"`
	Revoked  []string               `yaml:"revoked"` // serials, as `rhumb identity revoke` prints them
}

// roleFile overrides the fleet's mode for one role on every node.
type roleFile struct {
	Mode placement.Mode `yaml:"mode"`
}

// zonesFile says where the master files are and which of them are served.
type zonesFile struct {
	// Dir is relative to the document; zones/ beside it by default.
	Dir string `yaml:"dir"`
	// KeepNamesRatio is the part of a zone's names that an apply must keep: a
	// file cut short by a full disk is a valid zone of few names.
	KeepNamesRatio float64             `yaml:"keep_names_ratio"`
	Serve          map[string]zoneFile `yaml:"serve"`
}

// zoneFile is one zone: its file, on which listeners it is served, and whether
// resolvers are referred to name servers near them.
type zoneFile struct {
	File        string           `yaml:"file"`
	Level       placement.Level  `yaml:"level"`
	NameServers *nameServersFile `yaml:"name_servers"`
	// DNSSEC: on, each node signs with the keys in its directory; off by default.
	DNSSEC string `yaml:"dnssec"`
	// OtherKeys are keys of other providers which sign the zone too, by a name of one's own.
	OtherKeys map[string]otherKeyFile `yaml:"other_keys"`

	Transfer  *transferFile  `yaml:"transfer"`
	Secondary *secondaryFile `yaml:"secondary"`
	Catalog   *catalogFile   `yaml:"catalog"`
	Listed    *listedFile    `yaml:"listed"`
	// Aliases have the addresses of other names, by name.
	Aliases map[string]string `yaml:"aliases"`
}

// nameServersFile steers the NS set of a zone. TTL is that of NS and glue: what a
// resolver keeps for so long, it does not ask us about, also when it is wrong.
type nameServersFile struct {
	Clusters []string           `yaml:"clusters"`
	Policy   string             `yaml:"policy"`
	Check    string             `yaml:"check"`
	TTL      placement.Duration `yaml:"ttl"`
}

// siteFile is a PoP. At is a pointer, since 0, 0 is a place too.
type siteFile struct {
	City    string      `yaml:"city"`
	At      *[2]float64 `yaml:"at"`
	Region  string      `yaml:"region"`
	Number  uint16      `yaml:"number"`
	Domains []string    `yaml:"domains"`
	// Beat and Edge are unicast: on an anycast address a site would hear itself.
	Beat     netip.AddrPort         `yaml:"beat"`
	Second   netip.AddrPort         `yaml:"second_beat"` // of a second machine with role health
	Edge     netip.AddrPort         `yaml:"edge"`
	QUICID   string                 `yaml:"quic_id"`
	Relay    *int64                 `yaml:"relay_mbit"` // 0 is nothing, none the default
	Sessions *int                   `yaml:"sessions"`
	Identity string                 `yaml:"identity"` // file with the site's certificate
	Clusters map[string]clusterFile `yaml:"clusters"`
	// Nodes stand in for Edge where a site has several edges.
	Nodes map[string]edgeNodeFile `yaml:"nodes"`
}

// clusterFile is a set of servers with one capacity, in queries or requests a
// second; 0 is without limit.
type clusterFile struct {
	Addresses   []netip.AddrPort `yaml:"addresses"`
	CNAME       string           `yaml:"cname"` // instead of addresses
	CapacityQPS int64            `yaml:"capacity_qps"`
	Check       string           `yaml:"check"`
}

// policyFile mirrors placement.Policy; Headroom is a part here, per mille there,
// since what is computed with must be an integer.
type policyFile struct {
	Choose   *branchFile        `yaml:"choose"`
	Pick     int                `yaml:"pick"`
	TTL      placement.Duration `yaml:"ttl"`
	Headroom float64            `yaml:"headroom"`
	AllDown  placement.AllDown  `yaml:"all_down"`
	// IgnoreECS is placement.Policy's.
	IgnoreECS bool `yaml:"ignore_ecs"`
	SkipFirst int  `yaml:"skip_first"`
	// Answers are placement.Policy's; nil: one cluster, Pick addresses of it.
	Answers *answersFile `yaml:"answers"`
}

type answersFile struct {
	Nearest *int `yaml:"nearest"`
	Random  int  `yaml:"random"`
}

// branchFile is a node of the policy tree, with at most one of its fields.
type branchFile struct {
	Sites    []string              `yaml:"sites"`
	Geo      map[string]branchFile `yaml:"geo"`
	Failover []branchFile          `yaml:"failover"`
	Weighted []weightedFile        `yaml:"weighted"`
}

// weightedFile gives a branch its share; without To the nearest of all serves.
type weightedFile struct {
	Weight int         `yaml:"weight"`
	To     *branchFile `yaml:"to"`
}

// serviceFile is what clients ask for. The selectors (clusters, sites, names) may
// be left out to mean all, and are never empty.
type serviceFile struct {
	Names    []string           `yaml:"names"`
	Clusters []string           `yaml:"clusters"`
	Sites    []string           `yaml:"sites"`
	Policy   string             `yaml:"policy"`
	Check    string             `yaml:"check"`
	TTL      placement.Duration `yaml:"ttl"`
	Mode     placement.Mode     `yaml:"mode"`
	Demand   map[string]int64   `yaml:"demand"`
	PerQuery int64              `yaml:"per_query"`
	HTTPS    *bindingFile       `yaml:"https"`
	SVCB     *bindingFile       `yaml:"svcb"`
	Edge     *edgeFile          `yaml:"edge"`
}

// edgeFile mirrors placement.Edge.
type edgeFile struct {
	Kind   placement.EdgeKind `yaml:"kind"`
	Mode   placement.Mode     `yaml:"mode"`
	VIPs   []netip.AddrPort   `yaml:"vips"`
	QUIC   *quicFile          `yaml:"quic"`
	Root   string             `yaml:"root"`
	Origin string             `yaml:"origin"`
	// Revival and Freshness are checked by hand: empty ones are off and L0.
	Revival   placement.Revival   `yaml:"revival"`
	Freshness placement.Freshness `yaml:"freshness"`
	TLS       edgeTLSFile         `yaml:"tls"`
	Export    placement.Export    `yaml:"export_secrets"`
	Events    eventsFile          `yaml:"events"`
	Uploads   uploadsFile         `yaml:"uploads"`
}

// edgeTLSFile names two PEM files on each node of the service.
type edgeTLSFile struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// prefixFile is an anycast net. Slots is a pointer, since 0 is a choice: nobody
// may ever withdraw.
type prefixFile struct {
	Reach         placement.Reach   `yaml:"reach"`
	Sites         []string          `yaml:"sites"`
	Clusters      []string          `yaml:"clusters"`
	Slots         *int              `yaml:"slots"`
	MinAnnouncing int               `yaml:"min_announcing"`
	Drain         drainFile         `yaml:"drain"`
	Witness       placement.Witness `yaml:"witness"`
	Mode          placement.Mode    `yaml:"mode"`
}

// drainFile is what the steps below announce add to the route.
type drainFile struct {
	Prepend int    `yaml:"prepend"`
	MED     uint32 `yaml:"med"`
}

// clientFile places a client prefix, or the clients of an AS, by hand; it beats
// every data set.
type clientFile struct {
	Country   string      `yaml:"country"`
	Continent string      `yaml:"continent"`
	Region    string      `yaml:"region"`
	At        *[2]float64 `yaml:"at"`
}

// ecsFile caps the client subnet option (RFC 7871), in bits; 0 is the default.
type ecsFile struct {
	Off   bool `yaml:"off"`
	Bits4 int  `yaml:"bits4"`
	Bits6 int  `yaml:"bits6"`
}

// safetyFile sets thresholds of the rules which judge intents; pointers, since 0
// switches a rule off on purpose.
type safetyFile struct {
	MinSites        *int     `yaml:"min_sites"`
	MaxDrains       *int     `yaml:"max_drains"`
	MinHeadroom     *float64 `yaml:"min_headroom"`
	MaxAnswerChange *float64 `yaml:"max_answer_change"`
}

// recoveryFile says how what failed comes back; pointers, since 0 is a value too.
type recoveryFile struct {
	Delay    *placement.Duration `yaml:"delay"`
	Ramp     *placement.Duration `yaml:"ramp"`
	Floor    *float64            `yaml:"floor"`
	HalfLife *placement.Duration `yaml:"half_life"`
}

// ZoneInfo is what the zone reader found in a zone file.
type ZoneInfo struct {
	// Names are all owner names, lower case and fully qualified.
	Names []string
	// Serial is that of the SOA.
	Serial uint32
	// Signed is the place, FILE:LINE, of the signature of the SOA where the zone's owner
	// has signed it; empty where nobody has.
	Signed string
	// Taken tells whether the file has addresses or an alias at a name, so that nothing
	// else can answer for it; nil: nowhere.
	Taken func(name string) bool
}

// ZoneReader reads a zone file strictly; its error names file, line and column.
// It stands outside this package because the zone's grammar belongs to authdns.
type ZoneReader func(origin, file string, data []byte) (ZoneInfo, error)

// Fleet is a checked fleet with the zone files that it names.
type Fleet struct {
	placement.Fleet
	// Blobs are the zone files by hex SHA-256.
	Blobs map[string][]byte

	where func(path ...string) (*document, []string)
}

// Mistake is one that was found after loading, at the place of an entry of the fleet and a
// path below it.
func (f *Fleet) Mistake(entry, below []string, reason string) error {
	d, at := f.where(entry...)
	return d.at(append(slices.Clone(at), below...), reason)
}

// LoadFleet reads a fleet file, the documents beside it and its zones, and
// checks the whole. The error joins every mistake found; nothing is returned
// half right.
func LoadFleet(file string, zones ZoneReader) (*Fleet, error) {
	files, err := documents(file)
	if err != nil {
		return nil, err
	}
	b := newBuilder(os.ReadFile)
	for i, f := range files {
		if err := b.open(f, i == 0); err != nil {
			return nil, err
		}
	}
	b.build(zones)
	if err := b.err(); err != nil {
		return nil, err
	}
	b.out.where = b.where
	return b.out, nil
}

// documents lists the fleet file and what lies in sites/ and services/ beside it.
// A directory that is there and cannot be read is an error: without its sites the
// fleet would look as if they had been given up.
func documents(file string) ([]string, error) {
	out := []string{file}
	for _, sub := range []string{"sites", "services"} {
		dir := filepath.Join(filepath.Dir(file), sub)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, &Error{File: dir, Reason: "cannot be read: " + rootCause(err)}
		}
		for _, e := range entries { // in order of name
			if ext := filepath.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return out, nil
}

// err joins what was found wrong with the file so far.
func (s *source) err() error { return errors.Join(s.errs...) }
