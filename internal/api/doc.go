// Package api serves state, events and operations over HTTP.
//
// It holds nothing of its own: everything shown is a pure function of a State,
// a value which the wiring hands over, and every change goes to a small
// interface which the wiring fulfils. So a page, the command line and a script
// see the same thing, and a test needs neither store nor network.
//
// # Words
//
//   - State: what is known at one moment: Snapshot, reports of the units, Slots.
//   - View: the document made from a State: a site's row, the status, a zone.
//   - Notice: a loud condition: observe mode, frozen, stale, fail-open, skew.
//   - Op: a change. It is refused (Refusal, 409), or done and told (Outcome).
//   - Topic, Delta: what the stream sends: one whole state, then what changed.
//
// # Flow
//
//	State ── views ──▶ GET status, sites, peers … (JSON)
//	State ── Choose with a Trace ──▶ POST explain
//	POST drain … ── auth ──▶ Ops ──▶ Outcome, or a Refusal as problem+json
//	Notify ──▶ hub: views, differences ──▶ each client of GET stream (SSE)
//
// # Who may do what
//
// The same handler stands on a unix socket, where root, the owner and members
// of the group operate, and on loopback TCP, where everybody reads and, in the
// lab only, operates. No address but loopback is served in clear: beyond it TLS is
// needed, and a token or a client certificate, each of a viewer or an operator.
package api
