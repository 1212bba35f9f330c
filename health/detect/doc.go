// Package detect tells a dead site from a broken path by heartbeats heard over several vias.
//
// A site is heard directly, and by the word of every other site that hears it. It is
// down only when it is silent on all paths; when a relay still hears it, our path is
// broken and the site lives.
//
// Detector is a value: arrivals and due times come in, changes come out, so that a
// recorded trace replays exactly (Replay). Link stands at the rim: it owns the
// socket, the clock and a thread.
//
// # Words
//
//   - subject: a site that is watched.
//   - via: a path by which a subject is heard: 0 is the direct one.
//   - slot: the number of a beat, time / interval since its sender started. Gaps
//     are lost beats, and a slot that does not rise proves nothing.
//   - incarnation: rises at each start of a sender; a beat of a lower one is old.
//   - hold: the observer doubts itself, since most subjects fell silent at once, so
//     that its verdicts wait.
//   - doubt: the suspicion that a subject may soon be silent for too long. It has a
//     beginning and an end, and is no verdict.
//   - early: a verdict before the timeout, where many paths owe a beat and others
//     were heard as expected.
//
// # Flow
//
//	datagram → tag, Marks ┬ beat ──────────→ Detector.Hear ───┐
//	                      ├ vector, reply ─→ Detector.Report ─┤
//	                      └ votes ─────────→ Event            ├→ up, path, down, left → Event
//	clock ─────────────────────────────────→ Detector.Due ────┘
//	a direct path that owes a beat → ask all → replies in one round trip
//	half of the timeout silent → doubt → Hearing.Suspected, until 3 s without a gap
//
// # Times
//
// Measured with the generator of Generate, four draws of 12 h each: see Defaults.
package detect
