// Package detect tells a dead site from a broken path by heartbeats heard over several vias.
//
// This version listens on the direct path alone: a subject is down when its
// newest beat is older than a timeout, judged at the due time and not at the
// next event. Relayed paths will be judged beside it.
//
// It is a leaf: it knows ids and times, neither sockets nor clocks. Arrivals and
// the present time come in as values, so that a recorded trace replays exactly.
//
// # Words
//
//   - subject: a site that is watched; its beats come from its nodes, and it is
//     heard while any of them is.
//   - incarnation: rises at each start of a sender; a beat of a lower one is old.
//   - hold: the observer doubts itself (it hears nobody, or it was late), so its
//     verdicts count for nobody until it knows better.
//
// # Flow
//
//	datagram → Open (tag, version) → Detector.Hear ┐
//	                            clock → Detector.Due ┴→ changes: up, down, left
package detect
