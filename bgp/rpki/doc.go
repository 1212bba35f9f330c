// Package rpki says whether the RPKI lets an AS originate a prefix, by the data of a validator.
//
// # Words
//
//   - VRP: validated ROA payload, one line of what a validator found: a prefix, the
//     longest announcement within it that is meant, and the AS which may originate it.
//   - State: valid, invalid or not-found, as RFC 6811 defines them.
//   - Source: where VRPs come from: a JSON file as rpki-client and Routinator write it,
//     or a cache that speaks RTR (RFC 8210, version 0 of RFC 6810 as fallback).
//   - Known: the routes which this node has announced before.
//
// # Flow
//
//	file (hot reload) ─┐
//	RTR cache ─────────┴─▶ Table ──▶ Source.Judge(prefix, AS) ─▶ Finding ─▶ guard.Raise
//
// Signatures are the validator's business; here its word is taken. Data that are
// missing or too old judge nothing: a validator which has died must not keep a prefix
// off the world. Nor does a finding ever take a route down. It is asked before a route
// is announced for the first time; later, and after a restart, it is an alarm.
package rpki
