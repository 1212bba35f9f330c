// Package health judges, from this vantage, whether a cluster can serve, and casts a damped Vote.
//
// It judges and never acts: every node folds the votes of all vantages by
// itself, and authdns, bgp and edge act on the verdicts.
//
// # Words
//
//   - Prober: one function which looks once and returns a Result that explains itself.
//   - damping: rise and fall counters, and a penalty for each transition; leaving
//     is immediate, coming back waits.
//   - vantage: this node. Its own site's clusters it probes; other sites it hears
//     by their beats, and by what others say to have heard.
//   - stream: the unix socket on which this role tells the other units of the
//     machine its own votes and those heard, so that they act together when the
//     store is away.
//
// # Flow
//
//	scheduler → Prober → Result → damper ─┐
//	beats, vectors → detect.Link ─────────┴→ ballot → Vote → Sink (store), Link (peers), Stream
//	votes on peers' datagrams ────────────→ ballot ─────────→ Stream
//
// # Goroutines
//
// The loop of Agent owns ballot and clusters; a goroutine a target looks; the one
// of detect.Link owns socket and detector, on a thread of its own: a loop that is
// busy with a thousand votes must not make this site look dead to all others. All
// end with the context of Run.
package health
