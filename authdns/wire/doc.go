// Package wire reads a query and writes a precompiled answer in place, without allocating.
//
// It serves what most clients ask: one question of class IN, with an OPT record or
// without. Whatever is odd it leaves, untouched, to the caller's slow path; it
// never answers with an error of its own.
//
// # Words
//
//   - Query: a request as it lies in its datagram, name lower-cased beside it.
//   - Body: what follows the question in a reply, packed once, with the counts and
//     flags which belong to it. Names in it point back into the question, so that
//     one body fits every spelling of the name.
//   - Arena: all bodies and names of an Index in one slice of octets. It holds no
//     pointer, so the garbage collector passes it by.
//   - Index: (name, type) to the first of the bodies an answer is chosen from.
//
// # Flow
//
// A Builder collects bodies and freezes them into an Index, which is immutable. A
// worker owns a Batch: Receive fills it with datagrams, Query.Parse reads one,
// Index.Find and the caller's choice name a body, Index.Reply writes the reply,
// and Send lets all of them go in one call of the kernel.
package wire
