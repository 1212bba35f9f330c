// Package dnssec signs RRsets and proves denial, on line or ahead of time.
//
// It holds no zone and no socket: records and instants in, signatures and proofs
// out. The same keys, records and hour give the same octets on every node, so
// that resolvers may ask any of them.
//
// # Words
//
//   - Key: a key pair of a zone with its times, as the tools of BIND keep it in two
//     files, K<zone>+<algorithm>+<tag>.key and .private.
//   - Ring: the keys of a zone at one instant: which are published, which sign the
//     DNSKEY RRset, which sign the data, and which the parent shall know.
//   - Window: inception and expiration of the signatures over an RRset. It moves
//     on every two days, at an hour of its own for each RRset, so that never all
//     signatures are made, or end, at once.
//   - Compact denial (RFC 9824): a name that does not exist is said to exist with
//     no types but NXNAME. It takes one signature, and tells nothing else.
//   - Cache: signatures by what was signed. Those of what exists are pinned, the
//     others make room for newer ones.
//   - Budget: how many signatures for names that do not exist may be made in a
//     second, so that whoever invents names does not buy our CPU with them.
//
// # Flow
//
//	files → Load → Keys ── NewRing(instant) → Ring.Sign(RRset) → RRSIGs
//	name, types → Denial → NSEC → Ring.Sign
package dnssec
