// Package tcprepair dumps a TCP connection into a record and restores it on another machine.
//
// The peer takes no part and sees no packet that tells of the move: a dumped
// connection falls silent, a restored one goes on with the same addresses,
// ports, sequence numbers, options and windows. What carries this is the
// kernel's repair mode (TCP_REPAIR, CAP_NET_ADMIN in the namespace's own user
// namespace is enough).
//
// # Words
//
//   - State: what the kernel knows of a connection, as plain values. It holds
//     no payload that was sent: the bytes [SndUna, SndNxt) which the peer has
//     not acknowledged are made anew by whoever restores.
//   - Dumped: a connection taken out of service here. It drops every packet
//     and sends no answer. It ends in exactly one of two ways: Abort puts it
//     back to work, Close forgets it without a packet.
//   - Restored: a connection of which everything is at hand elsewhere, unknown
//     to the network. It ends in exactly one of two ways: Activate establishes
//     it and lets it speak, Close forgets it.
//
// # Flow
//
//	A: Dump ──State──▶ B: Restore (silent)          both may still be undone
//	A: stops believing it owns the connection
//	                   B: Activate → *net.TCPConn   a window probe goes out and
//	                                                brings the peer's true ACK
//	A: Close (silent)
//
// The order of the calls inside Dump and Restore is not free; each step says
// what breaks without it. Sequence numbers are modulo 2^32 throughout.
package tcprepair
