// Package timeline draws what happened when: as rows of letters for a terminal, and as SVG for a page.
//
// # Words
//
//   - Mark: a word at a time; an event, or a state that begins.
//   - Lane: one thing watched, as the states it passed through: who answers a
//     client, where a route leads.
//   - Area: what was counted by key over equal spans of time, drawn as shares of
//     the whole: which site serves how much.
//   - Chart: all of them over the same seconds.
//
// # Flow
//
// Whoever watches gathers Marks and counts, and hands over a Chart when it is over.
// Drawing is pure: the same Chart gives the same bytes, so pictures can be compared.
package timeline
