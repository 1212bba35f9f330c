// Package handsock lets a server of any make give connections away and take them, through the hand-off socket of Rhumb's edge.
//
// A server that can put what it knows of a connection into 512 octets, and go on
// from there in another process, needs nothing else to outlive its site: it connects
// to the agent on its host (a unix socket, SOCK_SEQPACKET), says for which service it
// speaks, and from then on answers six messages. The page docs/reference/handoff.md
// has the octets, for other languages.
//
// # Words
//
//   - Hand-off: one attempt to move one connection, named by a number that the
//     agent chooses.
//   - Record: what a server tells its counterpart of a connection. Opaque to the
//     agent.
//   - Giver, taker: the servers on both ends of a hand-off.
//
// # Flow
//
//	giver                agent ······ agent                taker
//	      ◀─ offer ──────  who wants it?
//	      ── offer, fd ─▶  silent, read  ──▶  made again
//	                                          ── offer, fd ─▶
//	                                          ◀─ ready ──────
//	      ◀─ commit ─────                ◀──
//	                                     ──▶  it speaks
//	                                          ── commit ────▶
//	                                          ◀─ active ─────
//	      ◀─ active ─────
//
// Until commit whoever has a reason says abort and the giver goes on. After it the
// giver goes on only if its agent says abort. phase.go has the whole of it as a pure
// function.
//
// # Concurrency
//
// Serve calls a Handler from one goroutine. Conn is safe for one reader and any
// number of writers.
package handsock
