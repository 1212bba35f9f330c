// Package zone reads RFC 1035 master files into a tree and keeps the previous tree when the new one is wrong.
//
// A Zone is immutable. Parse either returns a whole, checked one or an *Error
// which names file, line, column and reason; so the caller keeps the version it
// has whenever the new one is wrong, and swaps a pointer when it is right.
//
// # Words
//
//   - Origin, apex: the name of the zone and the node which carries it.
//
//   - Cut: a node below the apex with NS records; what lies beneath belongs to
//     somebody else, and only addresses of name servers (glue) may stand there.
//
//   - Empty non-terminal: a node without records which has children; it exists.
//
//   - Mark: a node whose answer comes from elsewhere (a steered name, the host
//     of a name server, a cut whose name servers are chosen per resolver). Marks
//     are laid over a Zone by With, which copies only the paths it touches.
//
//   - Plain line: a record as large zones have millions of, which is read here and not
//     by the library. All else of a file the library reads, an entry at a time.
//
// # Flow
//
//	master file ── Parse ──▶ Zone ── With(marks) ──▶ Zone ── Lookup(name, type) ──▶ Result
//	                          └── Diff(old, new) ──▶ names lost and added
//
// Lookup is one walk from the apex to the name, label by label. On that walk it
// meets, in the order in which RFC 1034 section 4.3.2 wants them, DNAMEs, cuts,
// the closest encloser and its wildcard.
package zone
