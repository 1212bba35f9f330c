package placement

// RuleName names a rule; Refusals, overrides and `help rules` use it.
type RuleName string

// The rules. The first five judge every lowering of a route whatever its cause;
// the others judge intents only, never measured failures, but for the removal
// cap, which is measurement's own.
const (
	RuleAnchors       RuleName = "anchors"
	RuleSlots         RuleName = "slots"
	RuleWitness       RuleName = "witness"
	RuleFault         RuleName = "fault"
	RuleLastNode      RuleName = "last-node"
	RuleBlastRadius   RuleName = "blast-radius"
	RuleEmptySelector RuleName = "empty-selector"
	RuleGRWithHealth  RuleName = "gr-with-health"
	RuleAddress       RuleName = "address"
	RuleMaxAnnounced  RuleName = "max-announced"
	RuleRPKIInvalid   RuleName = "rpki-invalid"
	RuleMinSites      RuleName = "min-sites"
	RuleMaxDrains     RuleName = "max-drains"
	RuleMinHeadroom   RuleName = "min-headroom"
	RuleAnswerChange  RuleName = "max-answer-change"
	RuleShrink        RuleName = "shrink"
	RuleSerial        RuleName = "serial"
	RuleRemovalCap    RuleName = "removal-cap"
	RuleOneFate       RuleName = "one-fate"
	RuleRetire        RuleName = "retire"
)

// Rule is a row of the one table of rules.
type Rule struct {
	Name      RuleName `json:"name"`
	Threshold string   `json:"threshold"`
	Enforcer  string   `json:"enforcer"`
	// Override tells whether an operator may set the rule aside by its name.
	Override bool `json:"override"`
}

// Rules returns the table, in the order in which they judge.
func Rules() []Rule {
	return []Rule{
		{RuleAnchors, "min_announcing named sites a prefix (2; 1 below 3 sites) go no lower than gshut for their own votes; a drain names another first", "Snapshot.Check, bgp/guard", true},
		{RuleSlots, "as many sites of a prefix withdrawn at once as it has slots (1; never more than sites - anchors); held, not leased", "bgp/guard", true},
		{RuleWitness, "at gshut, after the dwell, another site's route must be seen; it stands for the slot while the store is away", "bgp/guard", true},
		{RuleFault, "a shared fault reaches gshut at most; a quorum's verdict against a site whose own votes are up needs slot and witness", "bgp/guard", false},
		{RuleLastNode, "a node of several leaves freely; a site's last one is the site's step", "bgp/guard", false},
		{RuleBlastRadius, "one intent lowers a prefix at no more sites than it has slots, and no more than max(1, 5 %) of the prefixes; one whole site excepted", "apply, bgp/guard", true},
		{RuleEmptySelector, "an empty filter matches nothing", "config, apply, bgp/guard", false},
		{RuleGRWithHealth, "no graceful restart with a health-gated prefix", "config", false},
		{RuleAddress, "none announced whose address is missing or whose listener is silent", "bgp/guard", false},
		{RuleMaxAnnounced, "a ceiling for the whole set of announced prefixes", "bgp/guard", true},
		{RuleRPKIInvalid, "a prefix whose origin is invalid by VRP data is not announced for the first time; stale or missing data pass, and what is announced stays", "bgp/guard", true},
		{RuleMinSites, "2 sites stay on", "apply, drain, bgp/guard", true},
		{RuleMaxDrains, "1 site drained at once", "apply, drain", true},
		{RuleMinHeadroom, "15 % of capacity left by the forecast", "apply, drain", true},
		{RuleAnswerChange, "40 % of the answers change by one apply", "apply", true},
		{RuleShrink, "a zone loses at most 30 % of its names by one apply", "apply", true},
		{RuleSerial, "a changed zone that others copy has a later serial (RFC 1982)", "apply", true},
		{RuleRemovalCap, "measurement removes at most max(1, 20 %) of a pool and 30 % of all capacity at once; one whole site always may; more than half dead keeps the last good answers", "decide.Fold", true},
		{RuleRetire, "only rhumb prefixes retire takes a prefix off the world, one site after the other; one that is deleted before goes to gshut at most", "apply, bgp/guard", false},
		{RuleOneFate, "name servers of a referral lie in at least two regions", "config, Snapshot.Check", false},
	}
}
