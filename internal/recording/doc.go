// Package recording reads recorded DNS traffic: pcap and pcapng files of any capture, and dnstap files of a server.
//
// # Words
//
//   - Packet: one DNS message over UDP, and between whom it went.
//   - Exchange: a query and the reply that was seen to it, if any.
//   - Skipped: what is no such message: other protocols, fragments, packets that the
//     capture has cut off. They are counted, so that a reader knows what is missing.
//
// # Flow
//
//	file ─▶ Open (by its first octets) ─▶ Packets one after another ─▶ Pair ─▶ Exchanges
//
// A file that is damaged yields what stands before the damage, and then an error.
// Nothing is trusted: every length is held against what is there.
package recording
