// Package decide folds Votes into Verdicts, makes a Plan and unfolds it into a Snapshot; same input, same output.
//
// Nothing in here has a clock, a socket, a goroutine or a memory. The director
// calls Plan, every node calls Fold and Unfold, and `simulate`, `explain --at`
// and the judges of intents call all three: what is predicted is what is done.
//
// # Words
//
//   - domain: the failure domain in which a vantage votes; a quorum counts
//     domains, so two observers behind one provider are one voice.
//   - open: a cluster that may be given clients. Held: a verdict that stays as
//     the Plan has it, because too few domains are fresh.
//   - pool: the clusters of one service. Capped: measured down, but kept in
//     service, since measurement may remove only so much at a time.
//   - base: where clients are when everything is up. A failure moves the least
//     possible away from the base, so recovery leads back to the very same map.
//
// # Flow
//
//	Votes ── Patch ── Fold ──▶ Verdicts ─┬─ Plan ──▶ base, moved to what is open: Splits, Weights, Steps, Anchors
//	                                     └─ Unfold ─▶ the Plan, moved on to what is open now ──▶ Snapshot
//
// Everything that orders is an integer, ties go by id, and no map is ranged
// over on the way to an output: two machines with equal inputs come to equal
// digests.
package decide
