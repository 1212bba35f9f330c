// Package seal makes and opens TLS 1.3 records from exported traffic secrets, any record again and the same.
//
// A handshake is not its business: crypto/tls does that and yields the two
// application traffic secrets. From there on this package is the record layer
// (RFC 8446 section 5) of a connection which may change its machine. Whoever has
// a secret and the plaintext can make the record of any number, so the bytes in
// flight need not travel with a session: they are made anew from the offset.
//
// # Words
//
//   - Suite: the AEAD and hash of a connection. All three of TLS 1.3 that are
//     in use: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305.
//   - Secret: the application traffic secret of one direction. A Sealer and an
//     Opener are made of one, and hold its key and no more.
//   - Number: the count of records before this one under the same secret. It is
//     the nonce.
//   - Stream: a text as records of one fixed size, the last one short, with or
//     without the close_notify behind them. Its bytes are a pure function of
//     secret, first number and text, addressable at any offset.
//
// # The one danger
//
// A number used for two texts under one secret gives away both, and lets
// anybody forge what comes after. So every record of a connection belongs to a
// Stream of its own range of numbers, two sites make a Stream only of a text
// which is proven the same, and what cannot be proven is not sealed at all. For
// the same reason Size is part of what two sites must agree upon.
//
// # Flow
//
//	secret.go  suites, secrets, keys (RFC 8446 section 7.3)
//	sealer.go  one record by its number
//	stream.go  a text as records; offset → record number = offset / record length
//	opener.go  the peer's records in order, alerts and KeyUpdate among them
package seal
