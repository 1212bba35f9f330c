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
//   - Fast path: replies that the slow path made ahead, for each name and type of
//     the files and for each choice of a steered name, in the arena of package
//     wire. It answers the common query over UDP in the slow path's own octets.
//   - Signing: the keys of a zone in one hour. Each RRset is signed once, when it is
//     first needed or before, and found again by what was signed, whichever state
//     wants it (package dnssec).
//   - Shield: cookies, the limit on replies per network, the quarantine for kinds
//     of query that do harm, and the black box in which one outlives the process.
//   - Gate: where queries wait whose replies have to be made, until all others of a
//     batch have theirs. When there is more to make than the purse of signatures or the
//     time pays for, those of the best class get it: a good cookie, a known network,
//     others, others below an attacked name.
//   - Ledger: what a worker counts on the fast path; it is emptied into the
//     metrics whenever those are read, and when the state changes.
//
// # Flow
//
//	SetZones, Apply ── compile ──▶ state (one atomic pointer)
//	                 ├─ quicken ──▶ finished replies (package wire)
//	datagrams → quarantine → wire.Query → cookie → index → Choose, if steered → patch → limit → datagrams
//	not at hand → gate: class, purse → made as above and kept, or truncated, or dropped
//	anything else → parse → class, type → zone of the level → look-up → steer or refer → secure → pack
//	an hour later ── turn ──▶ sign what is due ── compile
//
// state.answer is the whole path as a pure function of octets, asker and state; what
// it signs on the way is the same whenever it does so, unless the budget is spent.
// TCP, tests, fuzzers and quicken call this same one; sockets, clocks and counters
// stay in the Server around it. A wrong zone keeps its previous version, a panic
// costs one answer.
package authdns
