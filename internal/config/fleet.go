package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

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
	ECS      ecsFile                `yaml:"ecs"`
	Safety   safetyFile             `yaml:"safety"`
	Revoked  []string               `yaml:"revoked"` // serials, as `rhumb identity revoke` prints them
}

type roleFile struct {
	Mode placement.Mode `yaml:"mode"`
}

type zonesFile struct {
	Dir            string              `yaml:"dir"`
	KeepNamesRatio float64             `yaml:"keep_names_ratio"`
	Serve          map[string]zoneFile `yaml:"serve"`
}

type zoneFile struct {
	File        string           `yaml:"file"`
	Level       placement.Level  `yaml:"level"`
	NameServers *nameServersFile `yaml:"name_servers"`
}

type nameServersFile struct {
	Clusters []string           `yaml:"clusters"`
	Policy   string             `yaml:"policy"`
	Check    string             `yaml:"check"`
	TTL      placement.Duration `yaml:"ttl"`
}

type siteFile struct {
	City     string                 `yaml:"city"`
	At       *[2]float64            `yaml:"at"`
	Region   string                 `yaml:"region"`
	Number   uint16                 `yaml:"number"`
	Domains  []string               `yaml:"domains"`
	Beat     netip.AddrPort         `yaml:"beat"`
	Edge     netip.AddrPort         `yaml:"edge"`
	Identity string                 `yaml:"identity"` // file with the site's certificate
	Clusters map[string]clusterFile `yaml:"clusters"`
}

type clusterFile struct {
	Addresses   []netip.AddrPort `yaml:"addresses"`
	CapacityQPS int64            `yaml:"capacity_qps"`
	Check       string           `yaml:"check"`
}

type checkFile struct {
	HTTP    *httpFile          `yaml:"http"`
	TCP     *tcpFile           `yaml:"tcp"`
	DNS     *dnsFile           `yaml:"dns"`
	Fault   placement.Fault    `yaml:"fault"`
	Every   placement.Duration `yaml:"every"`
	Timeout placement.Duration `yaml:"timeout"`
	Rise    int                `yaml:"rise"`
	Fall    int                `yaml:"fall"`
}

type httpFile struct {
	Path   string `yaml:"path"`
	TLS    bool   `yaml:"tls"`
	Host   string `yaml:"host"`
	Expect []int  `yaml:"expect"`
	Body   string `yaml:"body"`
	Verify string `yaml:"verify"`
}

type tcpFile struct {
	Send   string `yaml:"send"`
	Expect string `yaml:"expect"`
}

type dnsFile struct {
	Name   string `yaml:"name"`
	Type   string `yaml:"type"`
	Expect string `yaml:"expect"`
}

type policyFile struct {
	Choose   *branchFile        `yaml:"choose"`
	Pick     int                `yaml:"pick"`
	TTL      placement.Duration `yaml:"ttl"`
	Headroom float64            `yaml:"headroom"`
	AllDown  placement.AllDown  `yaml:"all_down"`
}

type branchFile struct {
	Sites    []string              `yaml:"sites"`
	Geo      map[string]branchFile `yaml:"geo"`
	Failover []branchFile          `yaml:"failover"`
	Weighted []weightedFile        `yaml:"weighted"`
}

type weightedFile struct {
	Weight int         `yaml:"weight"`
	To     *branchFile `yaml:"to"`
}

type serviceFile struct {
	Names    []string           `yaml:"names"`
	Clusters []string           `yaml:"clusters"`
	Sites    []string           `yaml:"sites"`
	Policy   string             `yaml:"policy"`
	Check    string             `yaml:"check"`
	TTL      placement.Duration `yaml:"ttl"`
	Mode     placement.Mode     `yaml:"mode"`
	Demand   map[string]int64   `yaml:"demand"`
	Edge     *edgeFile          `yaml:"edge"`
}

type edgeFile struct {
	Kind   placement.EdgeKind `yaml:"kind"`
	Mode   placement.Mode     `yaml:"mode"`
	VIPs   []netip.AddrPort   `yaml:"vips"`
	Root   string             `yaml:"root"`
	Origin string             `yaml:"origin"`
}

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

type drainFile struct {
	Prepend int    `yaml:"prepend"`
	MED     uint32 `yaml:"med"`
}

type clientFile struct {
	Country   string      `yaml:"country"`
	Continent string      `yaml:"continent"`
	Region    string      `yaml:"region"`
	At        *[2]float64 `yaml:"at"`
}

type ecsFile struct {
	Off   bool `yaml:"off"`
	Bits4 int  `yaml:"bits4"`
	Bits6 int  `yaml:"bits6"`
}

type safetyFile struct {
	MinSites        *int     `yaml:"min_sites"`
	MaxDrains       *int     `yaml:"max_drains"`
	MinHeadroom     *float64 `yaml:"min_headroom"`
	MaxAnswerChange *float64 `yaml:"max_answer_change"`
}

// ZoneInfo is what the zone reader found in a zone file.
type ZoneInfo struct {
	// Names are all owner names, lower case and fully qualified.
	Names []string
}

// ZoneReader reads a zone file strictly; its error names file, line and column.
// It stands outside this package because the zone's grammar belongs to authdns.
type ZoneReader func(origin, file string, data []byte) (ZoneInfo, error)

// Fleet is a checked fleet with the zone files that it names.
type Fleet struct {
	placement.Fleet
	// Blobs are the zone files by hex SHA-256.
	Blobs map[string][]byte
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

func (s *source) err() error { return errors.Join(s.errs...) }
