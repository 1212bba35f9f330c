// Package guard alone may lower an announcement: it weighs fault, Anchors, Slot and witness, and says why it refuses.
//
// # Words
//
//   - Request: everything a judgement needs, as values; nothing is looked up.
//   - Lower: where the prefix may go, and the Refusal which keeps it from going
//     further. Raise: the same for the way up (address, ceiling).
//   - Ladder: where one Prefix stands at one Node, since when, and when it may
//     move next.
//
// # Flow
//
//	Announcement wanted ─▶ Ladder.Next (dwell, warm-up, one rung at a time) ─▶ rung asked
//	rung asked + Anchors + Slot + live announcements + witness ─▶ Lower ─▶ rung permitted
//
// Three rules bound what can go wrong, each with less help than the one before:
// Slots count (they need the store), a witness is seen (it needs a router), and
// Anchors stay (they need nothing). So with the store away and every prober
// lying, each prefix is still announced from its Anchors.
//
// Every function here is pure: same values in, same answer out, on every node.
package guard
