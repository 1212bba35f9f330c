// Package silence keeps the FIN and RST of a dead process from the clients whose sessions can be revived.
//
// When a process dies its kernel closes its sockets, and a client that has seen
// a FIN or an RST is lost, however much is known of its session elsewhere. So
// the kernel drops what ends a connection, for the flows in a set and as long
// as somebody lives who renews it.
//
// # Words
//
//   - Flow: one connection of this host, its local end first.
//   - Quiet: a flow in the set. Its FIN and RST do not leave this host.
//   - Left: a flow that an earlier process left quiet.
//
// # Flow
//
// One nftables table; its rules take the FIN out of a segment and drop an RST, of a flow
// in the set and while one more element is there, which lives 2 s and is renewed each
// 0.5 s: so many flows cost no more than one. Whoever closes a session itself takes its flow
// out first. When the process is gone and none comes in its place, that element ends and the
// kernel speaks again, for all; the flows' own elements follow within a minute. There is no
// permanent rule and nothing to clean up.
//
// A new process finds the flows that are left, keeps them quiet while it tries
// to go on with their sessions, and gives the others back to the kernel.
//
// # Concurrency
//
// All methods are safe for concurrent use; one lock orders what the kernel is
// told. Remove returns when the kernel has it.
package silence
