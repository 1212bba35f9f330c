// Package placement names what Rhumb reasons about, and the Snapshot which says who serves whom.
//
// Everybody talks in the nouns of this package and nobody else's: it imports
// nothing of ours but placement/lpm, so that a part which wants a noun drags
// nothing else along.
//
// # Words
//
//   - Inventory: what the operator wants, at one store revision: Sites with their
//     Clusters, Services, Policies, Checks, Prefixes, Zones, and intents (Drain,
//     Force, Dial, Freeze, Pin).
//   - Vote: what one vantage says of a Cluster or of a Site. Verdict: all Votes
//     folded; every node folds them itself and comes to the same result.
//   - Plan: the director's decision in short form. Snapshot: a Plan unfolded with
//     Verdicts; immutable, numbered, and the only thing that appliers read.
//   - Step: how loudly a Prefix is announced at a Site. Anchors, Slot: why it
//     can never fall silent everywhere. Refusal: why something was not done.
//
// # Flow
//
//	Inventory + Votes + Demand ── decide ──▶ Plan ── store ──▶ every node
//	Plan + Inventory + Votes   ── decide ──▶ Snapshot 1042.17 ──▶ Current
//	Current ──▶ authdns answers │ bgp announces │ edge re-aims Backups │ explain
//
// All types are values or are never changed after they were published; none of
// them needs a lock. Sorted slices stand where the order reaches an output, so
// that no decision depends on the order of a map.
package placement
