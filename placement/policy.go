package placement

// AllDown says what is answered when no eligible cluster is usable.
type AllDown string

// The all-down rules; the zero value means FailOpen, since monitors that see
// everything down are more often broken than right.
const (
	FailOpen AllDown = "fail_open" // as if all were up
	NoData   AllDown = "nodata"    // NOERROR without records
	ServFail AllDown = "servfail"
	Refuse   AllDown = "refuse" // resolvers then ask another name server, of whoever else serves the zone
	Static   AllDown = "static" // the same set for everybody, as in mode observe
	// LastGood answers as before the last cluster fell, All with every address, Closest
	// with the nearest cluster that no operator keeps out, whatever its tier.
	LastGood AllDown = "last_good"
	All      AllDown = "all"
	Closest  AllDown = "closest"
)

// AllDowns are the rules.
func AllDowns() []AllDown {
	return []AllDown{FailOpen, NoData, ServFail, Refuse, Static, LastGood, All, Closest}
}

// Closed tells whether nobody is taken for up who measures down.
func (a AllDown) Closed() bool { return a != FailOpen && a != "" }

// Denies tells whether clients are left without an address.
func (a AllDown) Denies() bool { return a == NoData || a == ServFail || a == Refuse }

// Policy says how to choose. It compiles to tiers of eligible clusters per class,
// which are filled in order within capacity; nothing else chooses.
type Policy struct {
	Name   string `json:"name"`
	Choose Branch `json:"choose"`
	// Pick is how many addresses of each family an answer carries (2..4).
	Pick int      `json:"pick"`
	TTL  Duration `json:"ttl"`
	// Headroom is the part of a capacity that may be used, in per mille; what is
	// left over takes the clients of a site that fails, until the next plan.
	Headroom int     `json:"headroom"`
	AllDown  AllDown `json:"all_down"`
	// IgnoreECS chooses by the resolver's address also where it tells the client's
	// subnet: one answer for all of its users, scope 0 (RFC 7871 section 7.2.1).
	IgnoreECS bool `json:"ignore_ecs,omitempty"`
	// SkipFirst passes over so many choices: names with 0 and 1 are a pair for clients
	// that race two servers. Where there are fewer the last one answers.
	SkipFirst int `json:"skip_first,omitempty"`
	// Answers, when set, makes an answer of several clusters.
	Answers Answers `json:"answers,omitzero"`
}

// Answers says of which clusters an answer is made, one address of each family from
// each: the nearest ones, the one that serves first, and others drawn at random. The
// zero value is one cluster with all of its addresses.
type Answers struct {
	Nearest int `json:"nearest,omitempty"`
	Random  int `json:"random,omitempty"`
}

// MaxAnswers is of how many clusters an answer may be made.
const MaxAnswers = 8

// Set tells whether an answer is made of several clusters.
func (a Answers) Set() bool { return a.Nearest+a.Random > 1 }

// Branch is a node of the policy tree; exactly one field is set, and an empty
// Branch means the nearest of all eligible clusters. Branches nest freely:
// failover of geo of weighted.
type Branch struct {
	// Sites is a leaf: the nearest among these sites.
	Sites []string `json:"sites,omitempty"`
	// Geo picks by country, continent or region of the client ("DE", "EU",
	// "europe"); the key "*" is for all others.
	Geo map[string]Branch `json:"geo,omitempty"`
	// Failover tries its branches in order.
	Failover []Branch `json:"failover,omitempty"`
	// Weighted divides the clients of a class among its branches.
	Weighted []Weighted `json:"weighted,omitempty"`
}

// Weighted is a branch with its share of the clients.
type Weighted struct {
	Weight int `json:"weight"`
	Branch `json:",inline" yaml:",inline"`
}
