// Package hold keeps the acknowledgements of a host's connections back until what
// they acknowledge is safe elsewhere. What a client's kernel has seen acknowledged it
// never sends again; so a server whose work shall go on after its crash must have
// given it away before.
//
// The words:
//
//   - A marked connection is one whose socket has Mark, by its listener.
//   - Held: a segment that leaves from a watched address, of a marked connection,
//     and acknowledges more than is allowed. It waits in a queue of the kernel.
//   - Watched: an address and port whose connections are held, for two seconds
//     from the last word of this process.
//
// The flow:
//
//	segment out → marked, watched? → queue → acknowledges more than allowed? → waits → Allow → leaves
//	                                                                   else → leaves
//
// If this process dies nobody reads the queue, and the kernel drops what would enter
// it: for two seconds nothing of a marked connection leaves, and whoever takes the
// connections over has that time. Then the addresses are no longer watched, and the
// kernel acts as if we had never been there.
package hold
