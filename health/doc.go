// Package health judges, from this vantage, whether a cluster can serve, and casts a damped Vote.
//
// It judges and never acts: every node folds the votes of all vantages by
// itself, and authdns, bgp and edge act on the verdicts.
//
// # Words
//
//   - Prober: one function which looks once and returns a Result that explains itself.
//   - Rule: how the findings of several checks at one address make its state: N of
//     M. What is unknown takes nothing down, and evidence does not count.
//   - evidence: what explains a failure (echoes) or hastens it (what clients met),
//     and never judges alone.
//   - damping: rise and fall counters, and a penalty for each transition; leaving
//     is immediate, coming back waits.
//   - vantage: this node. Its own site's clusters it probes; other sites it hears
//     by their beats, and by what others say to have heard.
//   - unit: another process of this machine. The kernel says when it ends (pidfd) and
//     whether its listeners are there (sock_diag); it ticks itself.
//   - pulse: what another machine of this site says of itself each 50 ms; three
//     missed on every network are its silence, which acts until a look contradicts.
//   - second: another machine of the site with this role. Both look and vote, as one
//     voice; one that misses the other says so in its vote, and once it is sure, the
//     silent one's last word counts no more.
//   - demand: a person asks for a look now; it counts as any other, once.
//   - fit: this machine can do its work. An unfit one votes its own site down (a
//     local fault) and leaves by the guard; it never ends.
//   - stream: the unix socket on which this role tells the other units of the
//     machine its own votes and those heard, so that they act together when the
//     store is away.
//
// # Flow
//
//	scheduler → Prober → Result → damper → Rule → cluster ─┐
//	what clients met (Evidence) ───────────↗               │
//	exits, ticks, listeners of units ──────────────────────┤
//	pulses of the site's other machines ───────────────────┤
//	beats of other sites → detect ─────────────────────────┴→ ballot → Vote → Sink (store), talker (peers), Stream
//	votes on peers' datagrams ─────────────────────────────→ ballot ─────────→ Stream
//	all of it → ledger (availability), Report
//
// # Goroutines
//
// The loop of Agent owns ballot and clusters; a goroutine a target looks; the one
// of detect.Link owns socket and detector, on a thread of its own: a loop that is
// busy with a thousand votes must not make this site look dead to all others. All
// end with the context of Run.
package health
