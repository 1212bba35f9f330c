package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// StoreAwayHold is how long a prefix stays at gshut before a witness may stand
// for the Slot while the store is away: longer than most of the Internet needs
// to move to another path (about 10 s for four fifths of it).
const StoreAwayHold = 10 * time.Second

// StoreForgets is how long after the store last renewed what this node announces it
// may still count on it: the lease of 10 s, and the 2 s which a site that was granted a
// Slot by that count may need until its own route is seen to be gone. A witness may
// stand for the Slot only after that, so that never two sites each rely on the other.
const StoreForgets = 15 * time.Second

// intentShare is the part of all prefixes, as a divisor, that one intent may
// lower: a twentieth, but always one.
const intentShare = 20

// defaultMinSites is how many sites stay on where the fleet says nothing.
const defaultMinSites = 2

// Request is one wish to change how loudly a Prefix is announced here, with all
// that is known of it. It is a value; the guard looks nothing up.
type Request struct {
	Prefix placement.Prefix
	Site   string
	Node   string
	// At is the rung in force, Want the one asked for.
	At, Want placement.Step
	// Order is how the fleet stands to the prefix.
	Order Order
	// Fault is the proof behind a lowering by health; with none, and no Intent,
	// it is a quorum's verdict against a site whose own votes are up.
	Fault  placement.Fault
	Intent bool
	// Alone is set where the intent is about this node, and its site stays: Others are then
	// those that are as loud as the site is to be, and are not to go themselves.
	Alone bool
	// Anchors are the sites which stay, Sites all that may announce.
	Anchors []string
	Sites   []string
	// Lowered are the lowerings by intent of the whole fleet, for blast-radius.
	Lowered []placement.Announcement
	// Prefixes is how many prefixes the fleet has.
	Prefixes int
	// MinSites is how many sites an intent leaves announcing; 0 is 2.
	MinSites int
	// Overrides are the rules which an operator has set aside by name.
	Overrides []string
	Evidence
}

// Order is how the fleet stands to a prefix. A configuration can forget one by mistake;
// a retirement is an order of its own, about that prefix and no other.
type Order uint8

// The orders.
const (
	Named     Order = iota // the fleet has the prefix
	Forgotten              // no fleet names it any more, and nobody has retired it
	Retired                // it is to go, and it is this site's turn
)

// Evidence is what stands for the last step.
type Evidence struct {
	// Slot held by this site, if any.
	Slot *placement.Slot
	// SlotRefusal is set when the store answered and said no.
	SlotRefusal *placement.Refusal
	// Left is set when this node left its site's others by a transaction which
	// required one of them to be announcing.
	Left bool
	// Others are the live nodes of this site which announce the prefix, this one aside.
	Others int
	// Seen is set when our router shows another site's route for the prefix,
	// itself not at gshut.
	Seen bool
	// AtGShut is how long the prefix has been at gshut here.
	AtGShut time.Duration
	// StoreAway is how long the store has renewed nothing of this node's.
	StoreAway time.Duration
	// Announcing are the other sites which the store says announce the prefix; -1
	// where that is not known.
	Announcing int
	// Covered is set when, by the store, enough other sites announce a global prefix
	// around this local one, so that nothing is lost with it; CoverSeen when our
	// router shows another site's route for such a prefix.
	Covered, CoverSeen bool
}

// answered tells whether the store has spoken: what it says of others is of now.
func (e *Evidence) answered() bool { return e.Slot != nil || e.SlotRefusal != nil || e.Left }

// covered tells whether a prefix around this one is known to stay: then all sites may
// withdraw this one, and no anchors are needed (bound by the cover's own rules).
func (e *Evidence) covered() bool { return e.Covered && e.answered() || e.CoverSeen }

// verdict is a rule's answer.
type verdict uint8

const (
	pass   verdict = iota // no objection; the next rule is asked
	permit                // decided: go
	refuse                // decided: stay, at gshut at the lowest
)

// judge asks one rule. The text of a refusal names what is had and what is asked.
type judge func(*Request) (verdict, *placement.Refusal)

// rule is a row of the guard's own table: the order is the order of judgement.
type rule struct {
	name     placement.RuleName
	override bool
	judge    judge
}

// lastStep returns the rules which judge the step to withdrawn.
func lastStep() [7]rule {
	return [...]rule{
		{placement.RuleRetire, false, judgeRetire},
		{placement.RuleFault, false, judgeFault},
		{placement.RuleLastNode, false, judgeLastNode},
		{placement.RuleAnchors, true, judgeAnchors},
		{placement.RuleMinSites, true, judgeMinSites},
		{placement.RuleSlots, true, judgeSlot},
		{placement.RuleWitness, true, judgeWitness},
	}
}

// Lower answers where the prefix may go, and which rule keeps it from going as
// far as asked. The answer is never louder than At unless the wish is.
func Lower(r Request) (placement.Step, *placement.Refusal) {
	if r.Want <= r.At {
		return r.Want, nil
	}
	if r.Alone && r.Others == 0 {
		return r.At, r.aloneRefusal()
	}
	if !r.overridden(placement.RuleBlastRadius) {
		if no := blastRadius(&r); no != nil {
			return r.At, no
		}
	}
	if r.Want < placement.Withdrawn {
		return r.Want, nil
	}
	stay := max(r.At, placement.GShut)
	for _, rule := range lastStep() {
		if rule.override && r.overridden(rule.name) {
			continue
		}
		switch v, no := rule.judge(&r); v {
		case permit:
			return placement.Withdrawn, nil
		case refuse:
			return stay, no
		}
	}
	return placement.Withdrawn, nil
}

// overridden tells whether an operator set the rule aside. Measured failures
// have no operator, so nothing is set aside for them.
func (r *Request) overridden(name placement.RuleName) bool {
	return r.Intent && slices.Contains(r.Overrides, string(name))
}

// quorum tells whether others judge a site which itself says that it is well.
func (r *Request) quorum() bool { return !r.Intent && r.Fault == placement.NoFault }

// refusal fills the shape which API, CLI and log print.
func (r *Request) refusal(rule placement.RuleName, have, limit, hint string) *placement.Refusal {
	return &placement.Refusal{Rule: rule, Object: r.Prefix.Prefix.String() + " at " + r.Site,
		Have: have, Limit: limit, Hint: hint}
}

// judgeRetire lets a retired prefix go, for which the other rules have nothing to keep,
// and holds one that was deleted without that: a clean-up that deletes too much must
// not be believed. What fails at this site is judged by the rules of failures.
func judgeRetire(r *Request) (verdict, *placement.Refusal) {
	switch {
	case r.Intent && r.Order == Retired:
		return permit, nil
	case r.Intent && r.Order == Forgotten:
		return refuse, r.refusal(placement.RuleRetire, "deleted, and not retired", "gshut at most",
			"rhumb prefixes retire "+r.Prefix.Prefix.String()+" --reason …; or apply it again")
	}
	return pass, nil
}

// judgeFault stops what all sites share: a site which cannot reach it knows
// nothing about itself, and every other site sees the same.
func judgeFault(r *Request) (verdict, *placement.Refusal) {
	if r.Intent || r.Fault != placement.SharedFault {
		return pass, nil
	}
	return refuse, r.refusal(placement.RuleFault, "shared fault", "gshut at most",
		"the cause lies outside this site; repair it, or drain the site")
}

// judgeLastNode lets a node of several leave the ECMP set: the site goes on
// announcing, so it is not the site's step. Without the store's transaction
// every node counts as the last.
func judgeLastNode(r *Request) (verdict, *placement.Refusal) {
	if r.Others > 0 && r.Left {
		return permit, nil
	}
	if r.Others > 0 && r.SlotRefusal != nil && r.SlotRefusal.Rule == placement.RuleLastNode {
		return refuse, r.SlotRefusal
	}
	if r.Alone {
		return refuse, r.aloneRefusal()
	}
	return pass, nil
}

// aloneRefusal keeps a node that is drained alone: the step would be its site's.
func (r *Request) aloneRefusal() *placement.Refusal {
	have := "no other node of the site stays"
	if r.Others > 0 {
		have = "the store has not confirmed that another node stays"
	}
	no := r.refusal(placement.RuleLastNode, have, "another node of the site announces it", "bring another node of the site back, or drain the site")
	no.Object += "/" + r.Node
	return no
}

// judgeAnchors keeps the named sites on the air, whoever asks: a drain names
// another anchor first.
func judgeAnchors(r *Request) (verdict, *placement.Refusal) {
	if r.covered() || !slices.Contains(r.Anchors, r.Site) {
		return pass, nil
	}
	return refuse, r.refusal(placement.RuleAnchors, fmt.Sprintf("%s is one of %d anchors", r.Site, len(r.Anchors)),
		"anchors stay at gshut", "name another anchor first: rhumb drain does")
}

// judgeMinSites counts who is left after an intent. A prefix of few sites asks for all
// of the others.
func judgeMinSites(r *Request) (verdict, *placement.Refusal) {
	limit := r.MinSites
	if limit == 0 {
		limit = defaultMinSites
	}
	limit = min(limit, len(r.Sites)-1)
	if !r.Intent || r.covered() || r.Announcing < 0 || r.Announcing >= limit {
		return pass, nil
	}
	return refuse, r.refusal(placement.RuleMinSites, fmt.Sprintf("%d other sites announcing", r.Announcing),
		fmt.Sprintf("%d", limit), "bring another site back first")
}

// judgeSlot asks for the right to be silent. Without the store it leaves the
// matter to the witness.
func judgeSlot(r *Request) (verdict, *placement.Refusal) {
	switch {
	case r.Slot != nil, r.covered() && !r.quorum():
		return pass, nil
	case r.SlotRefusal != nil:
		return refuse, r.SlotRefusal
	case r.quorum():
		return refuse, r.refusal(placement.RuleSlots, "no slot", "a quorum's verdict needs slot and witness", "")
	}
	return pass, nil
}

// blastRadius bounds what one intent may do: as many sites of a prefix as it
// has Slots, unless it is retired, and a twentieth of all prefixes, the drain of one
// whole site aside.
func blastRadius(r *Request) *placement.Refusal {
	if !r.Intent || r.Alone {
		return nil
	}
	sites, prefixes, places := r.spread()
	if k := r.budget(); len(sites) > k && !r.covered() && r.Order != Retired {
		return r.refusal(placement.RuleBlastRadius, fmt.Sprintf("%d sites lowered by intent", len(sites)),
			fmt.Sprintf("%d", k), "undrain a site, or override the rule by its name")
	}
	limit := max(1, r.Prefixes/intentShare)
	if len(prefixes) > limit && len(places) > 1 {
		return r.refusal(placement.RuleBlastRadius, fmt.Sprintf("%d of %d prefixes lowered by intent", len(prefixes), r.Prefixes),
			fmt.Sprintf("%d, or one whole site", limit), "go by stages, or override the rule by its name")
	}
	return nil
}

// budget is how many sites of the prefix may be withdrawn at once; an intent may always
// lower one.
func (r *Request) budget() int {
	return max(1, min(r.Prefix.Slots, len(r.Sites)-r.Prefix.MinAnchors(len(r.Sites))))
}

// spread returns the sites at which this prefix is lowered by intent, the
// prefixes which are lowered anywhere, and all sites concerned. The request's
// own is among them.
func (r *Request) spread() (sites []string, prefixes []netip.Prefix, places []string) {
	sites, prefixes, places = []string{r.Site}, []netip.Prefix{r.Prefix.Prefix}, []string{r.Site}
	for _, a := range r.Lowered {
		if !a.Intent || a.Want == placement.Announce {
			continue
		}
		if a.Prefix == r.Prefix.Prefix {
			sites = add(sites, a.Site)
		}
		prefixes, places = add(prefixes, a.Prefix), add(places, a.Site)
	}
	return sites, prefixes, places
}

// add appends what is not there yet; the lists are short, and keep their order.
func add[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}

// Ascent is one wish to announce a prefix which is not announced here now.
type Ascent struct {
	Prefix netip.Prefix
	// Missing says what keeps the address from being used: not bound on lo, or
	// no listener answering. Empty when all is there.
	Missing string
	// Announced of Max prefixes are announced by this node now; Max 0 is no ceiling.
	Announced, Max int
	// Invalid says what fresh VRP data have against our origin, if anything; Before is
	// set when the prefix was announced from here before: then it is only an alarm.
	Invalid   string
	Before    bool
	Overrides []string
}

// Raise tells whether a silent prefix may be announced. Attracting traffic to
// an address nobody serves is worse than silence; a ceiling catches the
// configuration which suddenly holds the Internet; and an origin that the RPKI calls
// invalid would be dropped by half of it, and be an alarm at the other half.
func Raise(a Ascent) *placement.Refusal {
	if a.Missing != "" {
		return &placement.Refusal{Rule: placement.RuleAddress, Object: a.Prefix.String(),
			Have: a.Missing, Limit: "bound on lo, listener answering", Hint: "start the listener; nothing is announced without it"}
	}
	if a.Max > 0 && a.Announced >= a.Max && !slices.Contains(a.Overrides, string(placement.RuleMaxAnnounced)) {
		return &placement.Refusal{Rule: placement.RuleMaxAnnounced, Object: a.Prefix.String(),
			Have: fmt.Sprintf("%d announced", a.Announced), Limit: fmt.Sprintf("%d", a.Max), Hint: "raise bgp.max_announced, or apply with --override max-announced"}
	}
	if a.Invalid != "" && !a.Before && !slices.Contains(a.Overrides, string(placement.RuleRPKIInvalid)) {
		return &placement.Refusal{Rule: placement.RuleRPKIInvalid, Object: a.Prefix.String(),
			Have: "invalid: " + a.Invalid, Limit: "a ROA for our AS, or none", Hint: "publish the ROA first, or apply with --override rpki-invalid"}
	}
	return nil
}
