// Package director holds the lease, solves, and publishes one Plan after another.
//
// One node in the fleet directs; any other can take over at any time, since a
// Plan depends on nothing but what the store holds and the clock. Losing the
// director changes nothing: the last Plan serves, and every node goes on
// folding votes by itself.
//
// # Words
//
//   - term: the time for which this node holds the lease. Every write is bound to it.
//   - settled: nothing in the plan waits for time to pass (no drain under way, no
//     ramp); a settled plan is looked at again seldom.
//
// # Flow
//
//	views ─┬─ a verdict changes ──── at once ──┐
//	       └─ anything else ─── after 100 ms ──┼─▶ decide.Plan ─▶ Check ─▶ differs? ─▶ Publish
//	clock ── drains and ramps ── each second ──┘
//	clock ── heartbeat each second, by which every node knows the age of what it has
package director
