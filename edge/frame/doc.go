// Package frame encodes a session's record and the numbered frames which carry it to the Backup.
//
// # Words
//
//   - Key names a session: the client's address and port, the VIP and its port.
//   - Record is the soft state from which any site with the same object can go
//     on with a session: what is being answered, since when, and where the
//     byte stream stood. 128 bytes for IPv4, 152 for IPv6; over
//     TLS up to 256, with the secrets of the connection.
//   - Offer is a Record with the state of a silenced connection: what a
//     planned hand-off ships.
//   - Frame is one message between two sites: a type, the session it is about
//     with epoch and generation, and a payload.
//   - Window numbers frames at the sender and knows which are unacknowledged;
//     those are what a crash of the link loses.
//
// # Wire
//
// A frame is a length (4 bytes, of what follows), version, type, the sequence
// number, epoch, generation, key and payload, all big-endian. Unknown versions
// and types, wrong lengths and trailing bytes are errors: both ends are ours,
// and a frame that is half understood moves a session into the unknown.
// Decoders allocate no more than the bytes they are given justify.
package frame
