// Package browser has a headless Chromium for tests, and a film for it to watch: a
// client which nobody here wrote.
//
// # Words
//
//   - Browser: a running Chromium with one page. It is spoken to over two pipes, so
//     nothing listens on a network, and it may be started in any namespace.
//   - Film: a video of constant bit rate, made here, byte by byte the same each time.
//   - Exchange: a request of the page as Chromium's network stack saw it: over which
//     connection, in which protocol, and how it failed if it did.
//   - Entry: a line of the page's own log: an event of its video or an error of a fetch.
//
// # Flow
//
// A test starts a Browser where its client stands, opens a page that the server under
// test serves (Pages holds them), breaks things, and reads the page's log and the
// Exchanges. The video page appends a second at a time and holds hardly anything in
// advance, so that a silence of the server longer than that is seen as a rebuffer.
//
// Nothing of this is part of the product: only tests import the package.
package browser
