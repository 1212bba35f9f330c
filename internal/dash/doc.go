// Package dash embeds the pages drawn from it.
//
// The pages are plain ES modules and one style sheet: nothing is bundled,
// nothing is loaded from elsewhere, and no style stands inline, so that the
// strictest content policy holds.
//
// # Words
//
//   - Model: what the page knows; the stream fills it, first whole, then by
//     differences.
//   - Row: a site, keyed by its name; only cells which changed are touched, so
//     that focus and selection stay where they are.
//   - Stale: what was not heard of for a while; it greys out and says its age.
//
// # Flow
//
//	GET /api/v1/stream ──▶ stream.js ──▶ model.js ──▶ sites, events, banners
//	drain dialog ──▶ POST (dry run) ──▶ consequence ──▶ POST ──▶ the stream tells
package dash
