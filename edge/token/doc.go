// Package token seals what a client brings back to resume at any site, and says which of two epochs is newer.
//
// A client that has lost its connection comes again, perhaps to another site,
// and shows the last token it was given. That site opens the token by itself,
// learns where the client stood, and asks the keepers of the session for a
// newer epoch. From then on every token of an older epoch is refused.
//
// # Words
//
//   - Token: claims about one session, sealed (XChaCha20-Poly1305) under a key
//     which all sites derive from a secret that they share, another one each
//     day. At most 512 octets of text. It is a bearer secret: for TLS only,
//     never logged.
//   - Session: 16 random octets, made when a client first comes.
//   - Epoch: which of its connections a session is at. It rises with each
//     resumption, and whoever has the highest one is the session's primary.
//   - Keeper: one of at most three sites, found by hash of the session, which
//     remember its epoch. A majority of them grants a newer one.
//   - Position: where the client stands, as the origin says it: an event id, or
//     the mark before a WebSocket's message.
//
// # Flow
//
//	key.go      secrets → keys of the day: today's seals, two at most open
//	seal.go     claims ⇄ text: pure functions of keys, claims and time
//	ledger.go   a keeper's memory: claim or touch → granted, stale or abstained
//	vote.go     the keepers of a session, and what their votes add up to
//	message.go  questions to keepers and their answers, as octets
//	rewrite.go  text/event-stream: the origin's ids become tokens
//	marks.go    WebSocket: the origin's marks become tokens
//
// # Why a stale epoch is refused
//
// Two majorities of one set of keepers share a member, so whoever claims with
// an old epoch meets one that knows better. Memory is soft, so it has to last
// as long as a token can: a primary touches its session at the keepers, gives
// its tokens no longer than Life from the last majority, and ends when that is
// over; a keeper remembers Life and Skew from the last touch or claim, and
// abstains about what it may have forgotten in a restart, though not about what it
// was asked since.
//
// Nothing here has a goroutine, a socket or a clock.
package token
