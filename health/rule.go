package health

import (
	"fmt"
	"strings"

	"rhumb/placement"
)

// Rule makes one state of what several checks found at one address. It is a tree:
// a leaf is a check that looks, a node combines its children.
type Rule struct {
	Check  *placement.Check // the leaf; nil for a node
	Of     []Rule
	Need   int // children that must be up; 0: all of them
	Invert bool
}

// maxDepth bounds the tree: a fleet that was not checked may name itself.
const maxDepth = 8

// ruleOf builds the rule of a check. A child that is disabled or not there counts
// as if it were not named.
func ruleOf(inv *placement.Inventory, c *placement.Check, depth int) Rule {
	if c.Of == nil {
		return Rule{Check: c}
	}
	r := Rule{Need: c.Of.Need, Invert: c.Invert}
	for _, name := range c.Of.Checks {
		child := inv.Check(name)
		if child != nil && !child.Disabled && depth < maxDepth {
			r.Of = append(r.Of, ruleOf(inv, child, depth+1))
		}
	}
	return r
}

// leaves returns the checks that look, in order.
func (r *Rule) leaves(out []*placement.Check) []*placement.Check {
	if r.Check != nil {
		return append(out, r.Check)
	}
	for i := range r.Of {
		out = r.Of[i].leaves(out)
	}
	return out
}

// finding is what a rule makes of the parts of an address.
type finding struct {
	state placement.State
	cause string
}

// judge folds the states of the checks. need is M where no number is given:
//
//	up or degraded ≥ need                     up; degraded if so many are not wholly up
//	up, degraded and unknown together < need  down
//	one is up, the others may yet be          up
//	otherwise                                 unknown
//
// A child that is unknown therefore never takes anything down. Evidence does not
// count; when the rule is down it says what it saw.
func (r *Rule) judge(see func(check string) finding) finding {
	if r.Check != nil {
		return see(r.Check.Name)
	}
	var t tally
	for i := range r.Of {
		f := r.Of[i].judge(see)
		if c := r.Of[i].Check; c != nil && c.Evidence() {
			t.witness(c.Name, f)
			continue
		}
		t.count(f)
	}
	f := t.finding(r.Need)
	if r.Invert {
		f = invertedFinding(f)
	}
	return f
}

func invertedFinding(f finding) finding {
	switch f.state {
	case placement.Unknown:
		return f
	case placement.Down:
		return finding{state: placement.Up}
	}
	return finding{placement.Down, "it works, and should not"}
}

// tally counts the children of a node by what was found.
type tally struct {
	up, degraded, unknown, down int
	causes, seen                []string
}

func (t *tally) count(f finding) {
	switch f.state {
	case placement.Up:
		t.up++
	case placement.Degraded:
		t.degraded++
	case placement.Down:
		t.down++
	default:
		t.unknown++
	}
	if f.cause != "" {
		t.causes = append(t.causes, f.cause)
	}
}

// witness keeps what evidence saw, for the words of a failure.
func (t *tally) witness(name string, f finding) {
	switch f.state {
	case placement.Up, placement.Degraded:
		t.seen = append(t.seen, fmt.Sprintf("%s: there is a path", name))
	case placement.Down:
		t.seen = append(t.seen, fmt.Sprintf("%s: %s", name, f.cause))
	}
}

func (t *tally) finding(need int) finding {
	m := t.up + t.degraded + t.unknown + t.down
	if need == 0 || need > m {
		need = m
	}
	cause := strings.Join(t.causes, ", ")
	switch {
	case m == 0:
		return finding{state: placement.Unknown}
	case t.up >= need:
		return finding{state: placement.Up}
	case t.up+t.degraded >= need:
		return finding{placement.Degraded, cause}
	case t.up+t.degraded+t.unknown < need:
		if len(t.seen) > 0 {
			cause += " (" + strings.Join(t.seen, ", ") + ")"
		}
		return finding{placement.Down, cause}
	case t.degraded > 0:
		return finding{placement.Degraded, cause}
	case t.up > 0:
		return finding{state: placement.Up}
	}
	return finding{placement.Unknown, cause}
}
