// Package node runs the loop of one machine: fold, unfold, check, apply, patch when the store is late.
//
// Each unit that acts runs one, so that the units of a machine act alike without
// asking each other. The loop never decides anything of its own: what it makes
// is a function of a plan, its inputs and the votes, the same on every node.
//
// # Words
//
//   - ahead: votes heard on the node's socket before the store had them. With
//     them the snapshot's name ends in +p, until the store has caught up.
//   - stale: an input that the plan names is not at hand, or what was unfolded
//     differs from what the director unfolded. The last snapshot stays in force,
//     loudly, and nothing is lowered for it.
//   - State: what a snapshot is made of, as kept on disk.
//
// # Flow
//
//	start:  disk ─▶ State ─▶ Snapshot ─▶ Current, before the store has answered
//	then:   store ─▶ View ──┐
//	        socket ─▶ votes ┴▶ inputs at hand? ─▶ Fold ─▶ Unfold ─▶ Check ─▶ Current ─┬▶ appliers
//	                                                                                 └▶ disk
package node
