// Package bgp keeps the prefixes announced to our peers equal to the set which is wanted and permitted.
//
// # Words
//
//   - Peer: a router we speak BGP with. Route: a prefix with its attributes.
//   - Engine: the seam to whoever speaks the protocol. gobgp.go is our own speaker
//     (only files of that name know the library); kernel.go writes routes which a
//     BIRD or FRR of the same host announces, the metric being the step.
//   - Watchdog: another process, which moves the kernel routes of a dead speaker
//     to gshut.
//   - Upstream: a peer whose path is looked at; what is found concerns it alone.
//   - Speaker: the loop of one node. It holds one ladder per prefix, asks the
//     guard before each step down and tells the engine what was permitted.
//   - BFD: watches the peers, and lets them watch us (package bfd). A session
//     which was Up and fails resets the BGP session to the same peer.
//   - Marker: the large community ASN:1:SITE on every anycast route; what a
//     router shows us of another site's is the witness of the guard.
//
// # Flow
//
//	Apply(snapshot, live) ─▶ newest wins ─▶ wish per prefix (own listener included)
//	   ─▶ guard ladder: which rung, when ─▶ guard rules: Slot, Anchors, witness, fault
//	   ─▶ address on lo ─▶ Engine ─▶ router       each step: one log line, one Event
//	every second: what the engine really holds ─▶ difference repaired
//
// The order around an address is fixed: bound, then announced; withdrawn, then
// a wait for the routers' FIBs, then unbound. In mode observe all of it runs but
// the engine, the address and the store are not touched.
//
// One goroutine owns all ladders; Apply, Status and the engine's events reach it
// by value. A process has one GoBGP at most, started once: the library cannot
// be restarted in place.
package bgp
