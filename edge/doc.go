// Package edge owns client sessions at this site and hands them off when their site leaves.
//
// The client takes no part: no special software, no second connection, no
// reset. It speaks HTTP/1.1 to an anycast address (VIP); when its packets
// begin to arrive at another site, that site takes the session over and goes
// on with it at the very byte.
//
// # Words
//
//   - Session: one client's connection to a VIP, named by a frame.Key. It has
//     one owner, the site whose kernel holds its socket.
//   - Object: an immutable byte string, named by a hash (package edge/content).
//     Two sites with one hash have one content.
//   - Record: what of a session travels. A response's wire bytes are a pure
//     function of record and object, so bytes in flight are never shipped.
//   - Stray: a packet of a session owned elsewhere. Package edge/forward
//     tunnels strays to their owner; here they are the reason for a pull.
//   - Pull, push: the site that gets the packets asks for the session; the
//     site that leaves gives away what nobody asked for until its deadline.
//   - Claim: the right to dump a session, taken once, by compare-and-swap.
//   - Backup: the site that shadows a session's record (soft state).
//   - Revival: a session whose site or process died goes on from its record,
//     if its service asks for that.
//     Its position is asked of the client, whose kernel knows it exactly.
//   - Preparation: what a revival would need is brought here while its site is
//     suspected. It changes nothing for anybody.
//
// # Flow
//
//	accept.go    accept → session
//	session.go   request → answer (pure) → wire bytes, until the end or a claim
//	response.go  what is answered, and its bytes
//	content/     objects: blocks, each checked before it is sent; a directory, an origin
//	link.go      frames to and from another site, over mutual TLS; links.go all sites
//	handoff.go   A: claim → dump → offer ─▶ B: restore, silent → ready
//	             A: moved → commit        ─▶ B: activate → active
//	             A: close, silent; before commit either side may call it off
//	pull.go      strays for long enough → pull; drain.go  deadline → push
//	replica.go   records to Backups: what those know of ours (shadow.go), and what
//	             we keep for others (stored.go)
//	aim.go       which Backup; book.go  whether it has room; reserve.go  for how many
//	guest.go     sessions of servers that are not ours: guest_phase.go (pure),
//	             guest_give.go, guest_take.go; lobby.go has their socket (handsock)
//	rest.go      the rest of an object that is on its way here; met.go tells how requests end
//	feeds.go     event streams and WebSockets of the origin (feed): ids become tokens,
//	             epochs are asked for at other sites
//	tls.go       handshake → crypto/tls goes on and the session stays (tls_web.go),
//	             or its secrets → a record layer of our own (tls_cover.go, seal)
//	prepare.go   suspicion → drill.go: needs.go (pure) → blocks read, objects fetched
//	             (content) by their names (names.go); cleared → given up
//	revive.go    verdict → claim → probe → sight.go (pure) → restore; rerevive.go
//	recall.go    process died → silence → records back → the same; or, where a process
//	             beside it held the sockets (fdstore), sockets.go: on from where they stand
//
// # Concurrency
//
// A session belongs to one goroutine. Whoever wants to move it stops that
// goroutine at its gate, owns the session while it waits there, and sends it
// on or home. Configuration is immutable and published by one pointer.
package edge
