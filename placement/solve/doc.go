// Package solve assigns demand to capacity at least cost, on integers alone, with a certified gap.
//
// # Words
//
//   - Class: an amount of demand which may go to several clusters, its Options,
//     best first. Part: what an option carries.
//   - Rank: the tier of an option; a lower rank is always better, whatever the cost.
//   - regret: how much dearer a class becomes when it loses its best option. Who
//     has most to lose chooses first.
//   - augmenting path: move others along a chain of clusters so that the last one
//     takes what the first one had no room for.
//   - gap: how far the cost lies above a bound that no assignment can beat.
//
// # Flow
//
//	Problem ─┬─ cold: nothing placed yet ──────────┐
//	         └─ warm: keep what fits, shed excess ─┴▶ fill by regret ─▶ augment the residue ─▶ Result
//
// Unserved demand remains only where a class has no option at all: a feasible
// problem is served within capacity, and in an overloaded one all capacities
// are scaled by the same least factor, so nobody is the victim.
package solve
