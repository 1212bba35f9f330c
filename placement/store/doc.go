// Package store keeps inventory, zones, votes, plans and slots in etcd, snapshots on disk, with a file store and a memory twin.
//
// It is the only door to etcd: nobody else in the tree knows its client, its
// server, or what its watch channel does when a revision was compacted.
//
// # Words
//
//   - kv: the small interface underneath (read, write with compares, watch from a
//     revision, lease) with three implementations: etcd, one append-only file, and
//     memory. One conformance suite holds the three equal.
//   - Store: the typed door above it. View: one immutable whole of what it holds.
//   - Document: a value too large for one request (fleet, plan, zone), written in
//     chunks first and named by a small pointer key last; immutable once named.
//   - Session: the leased keys of one unit (votes, announcements, load). When the
//     unit dies they vanish: absent, which is not the same as down.
//   - Term: the director's lease. Slot: a site's right to withdraw; never leased.
//
// # Flow
//
//	PutFleet, PutDrain … ──▶ config/, intents ─┐
//	Session: votes, announce, load ────────────┼─ Follow ──▶ *View, *View, …
//	Campaign ──▶ Term ──▶ Publish ──▶ plan/ ────┘
//	Disk: the last three applied states by value, for a start without any store
//
// # What holds
//
//   - One logical change is one transaction; a reader takes one linearizable list
//     at revision R and watches from R+1.
//   - Inventory.Revision is a function of the content: the newest change among
//     the configuration pointer and the intents.
//   - No call outlives its context, and none waits longer than a few seconds
//     where the context names no deadline. A store that is away stops nothing:
//     the last View stays valid, only its Connected turns false.
package store
