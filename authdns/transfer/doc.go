// Package transfer sends and receives zones: AXFR, IXFR, NOTIFY, TSIG, over TCP and TLS.
//
// # Words
//
//   - Desk: where the name server hands in each request that may concern a
//     transfer: one that is signed, asks for a whole zone, or tells of a new one.
//   - Version: a zone at one serial. Two versions of a zone are compared by RFC
//     1982; of the same serial there is only one.
//   - Delta: what must be removed from a version, and what added, to have the next.
//   - Journal: the last deltas of a zone, in memory and bounded: by number, and
//     never more records than the zone has, since beyond that AXFR is shorter.
//   - Primary: who is asked. Secondary: a zone which others are asked for.
//   - Catalog: a zone that lists zones, its members (RFC 9432). Listing: how a catalog
//     lists one; of two listings of one name none has what was kept for the other.
//   - Held: the version of a secondary that is in force, kept on disk.
//   - Confirmed: when a primary last said, or showed, that the held version is
//     its newest. Expire counts from there (RFC 1035 section 3.3.13).
//
// # Flow
//
//	out  version in force ─ Set ─▶ journal ─▶ NOTIFY to those named, until answered
//	     request ─ Desk.Read (TSIG) ─▶ who may? ─▶ IXFR from the journal, else AXFR,
//	     in messages of 16 KiB, each signed, each within a deadline
//	in   timers, NOTIFY ─ refresh (pure) ─▶ SOA ─▶ IXFR, else AXFR ─▶ records
//	     ─▶ master file, in order ─▶ checked like the operator's ─▶ disk ─▶ server
//
// A version is taken whole or not at all: the parent hands in the check that its
// own files pass, and until that says yes the last good version serves on.
package transfer
