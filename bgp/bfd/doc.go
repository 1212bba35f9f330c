// Package bfd watches a neighbour by RFC 5880 asynchronous mode, GTSM checked, on its own thread.
//
// # Words
//
//   - Session: what we and one neighbour know of each other; a value.
//   - Beat: a control packet. Detection time: the silence after which a
//     neighbour counts as gone.
//   - Watcher: the thread which sends the beats of all sessions and hears theirs.
//   - Alive: the promise of whoever uses this package that its own loop runs.
//     Beats go out only while it holds, so a neighbour learns of a hung process
//     as it learns of a dead one.
//
// # Flow
//
//	socket ─▶ TTL 255? (RFC 5881 section 5) ─▶ Decode ─▶ session by Your Discriminator
//	   ─▶ Session.Receive ─▶ state changed: beat at once, Config.Changed
//	clock ─▶ Session.Expire (silence) ─▶ Config.Changed
//	clock ─▶ due? alive? ─▶ Session.Packet ─▶ socket
//
// Sessions decide and know neither clock nor socket; the Watcher does the rest,
// on a locked thread of the operating system which waits in the kernel for
// packets and due times. What waits in a socket is always read before silence
// is judged, so a late thread finds no neighbour dead who was not. Nothing is
// allocated for a packet.
//
// Neighbours on a link of ours only (RFC 5881): one socket for each of our
// addresses which has sessions, bound to its interface. No echo, no demand mode of our own, no
// authentication: a packet with TTL 255 comes from the same link.
package bfd
