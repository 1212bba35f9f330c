// Package lpm finds the longest prefix containing an address, in a table frozen after Build.
//
// It answers two questions of the query path, both without allocating:
//
//   - [Table.Lookup]: which value has this client, and by which prefix;
//   - [Blocks.Block]: which is the largest aligned block around this client
//     in which everybody gets the same answer. That block is the SCOPE
//     PREFIX-LENGTH of a DNS answer (RFC 7871 section 7.2.1).
//
// # Words
//
// An entry is a prefix and its value. A range is a stretch of addresses with
// one longest match; the ranges of a family lie end to end from its first
// address to its last, so nested prefixes are gone and a look-up is the search
// for one range. A page is the neighbouring ranges whose keys have the upper half in
// common. A leaf is what a range answers. A label is what a caller makes
// of a value (an answer, for instance), and a run is a stretch of neighbouring
// ranges with equal labels.
//
// # Flow
//
// Build sorts the entries, a Builder takes them as they come in order; it sweeps over
// them once to get the ranges. They are kept as columns, five bytes a range for IPv4
// and seven for IPv6, with tables by leading bits over them that leave a few ranges
// to be halved. Memory follows the number of ranges, not the address space.
//
// Fold colours the ranges with labels and merges neighbours into runs, one pass
// over flat arrays. That is cheap enough to happen at every change of health.
// The block of an address is then arithmetic: it is the largest aligned block
// that holds neither the address before the run nor the one after it. Maximal
// uniform aligned blocks partition the space, so no two of them overlap and a
// resolver may cache them in any order.
//
// A Table and its Blocks never change once made; any number of goroutines may
// read them. Publishing a new one is the caller's affair (an atomic pointer).
package lpm
