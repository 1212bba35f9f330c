// Package authdns answers authoritative DNS from zones and the current Snapshot.
//
// It never probes and never decides: health and choice lie in the Snapshot. It
// knows nothing of routes or sessions and runs alone as well, with static zones.
//
// # Words
//
//   - Level: a listener is top or low. On a top one, zones whose name servers are
//     chosen per resolver are referred to and never answered, even where this node
//     holds them; on a low one they are answered. The level belongs to the address
//     asked, not to the node.
//   - Referral: NS and glue near the resolver's own address. The apex NS of the
//     child is the same set for the same resolver (RFC 2181 section 5.4.1 ranks it
//     higher, so another set would undo the choice).
//   - Steered name: its addresses are chosen per client, by ECS (RFC 7871) or by
//     the address of the resolver; every node with the same Snapshot answers alike.
//   - Observe: a name keeps its static set; what would have been answered is
//     counted and logged.
//   - State: zones and Snapshot compiled together, immutable, behind one pointer.
//
// # Flow
//
//	SetZones, Apply ── compile ──▶ state (one atomic pointer)
//	packet → parse → class, type → zone of the level → look-up → steer or refer → pack
//
// state.answer is the whole path as a pure function of octets, asker and state.
// UDP, TCP, tests and fuzzers call this same one; sockets, clocks and counters
// stay in the Server around it. A wrong zone keeps its previous version, a panic
// costs one answer.
package authdns
