package rpki

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// VRP is a validated ROA payload (RFC 6811, section 2).
type VRP struct {
	Prefix    netip.Prefix // masked
	MaxLength uint8
	// ASN may originate; 0 means that nobody may (RFC 6483, section 4).
	ASN uint32
}

// String prints a VRP as operators write it, as 192.0.2.0/24-24 AS64500.
func (v VRP) String() string { return fmt.Sprintf("%s-%d AS%d", v.Prefix, v.MaxLength, v.ASN) }

// valid tells whether the payload can be true at all.
func (v VRP) valid() bool {
	return v.Prefix.IsValid() && v.Prefix == v.Prefix.Masked() && !v.Prefix.Addr().Is4In6() &&
		int(v.MaxLength) >= v.Prefix.Bits() && int(v.MaxLength) <= v.Prefix.Addr().BitLen()
}

// compare orders by prefix, shorter first, then by AS and length.
func (v VRP) compare(o VRP) int {
	return cmp.Or(v.Prefix.Addr().Compare(o.Prefix.Addr()), cmp.Compare(v.Prefix.Bits(), o.Prefix.Bits()),
		cmp.Compare(v.ASN, o.ASN), cmp.Compare(v.MaxLength, o.MaxLength))
}

// State is what the RPKI says of a route's origin.
type State uint8

// The validation states (RFC 6811, section 2).
const (
	NotFound State = iota // no VRP covers the route
	Valid                 // one which covers it matches
	Invalid               // some cover it, none matches
)

// String returns the state's name.
func (s State) String() string { return [...]string{"not-found", "valid", "invalid"}[s] }

// Table is a set of VRPs at one time. It is immutable.
type Table struct {
	vrps []VRP // in order, each once
	// At is how old the data are: when the validator made them, or the cache last
	// confirmed them.
	At time.Time
	// Expire is how long the data are good by the cache's own word; 0 where it has none.
	Expire time.Duration
}

// NewTable returns the table of the VRPs; those which cannot be true are left out.
func NewTable(vrps []VRP, at time.Time) *Table {
	vrps = slices.DeleteFunc(slices.Clone(vrps), func(v VRP) bool { return !v.valid() })
	slices.SortFunc(vrps, VRP.compare)
	return &Table{vrps: slices.Compact(vrps), At: at}
}

// Len returns the number of VRPs.
func (t *Table) Len() int { return len(t.vrps) }

// Judge returns the state of a route by its prefix and its origin, and the VRPs
// which cover it (RFC 6811, section 2.1).
func (t *Table) Judge(route netip.Prefix, origin uint32) (State, []VRP) {
	route = route.Masked()
	covering, state := t.covering(route), NotFound
	for _, v := range covering {
		if v.ASN == origin && origin != 0 && int(v.MaxLength) >= route.Bits() {
			return Valid, covering
		}
		state = Invalid
	}
	return state, covering
}

// covering looks for each shorter prefix in turn: at most 33 or 129 searches.
func (t *Table) covering(route netip.Prefix) []VRP {
	var out []VRP
	for bits := 0; bits <= route.Bits(); bits++ {
		p := netip.PrefixFrom(route.Addr(), bits).Masked()
		i, _ := slices.BinarySearchFunc(t.vrps, p, func(v VRP, p netip.Prefix) int {
			return cmp.Or(v.Prefix.Addr().Compare(p.Addr()), cmp.Compare(v.Prefix.Bits(), p.Bits()), 1)
		})
		for ; i < len(t.vrps) && t.vrps[i].Prefix == p; i++ {
			out = append(out, t.vrps[i])
		}
	}
	return out
}
