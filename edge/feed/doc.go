// Package feed serves the event streams and WebSockets of an origin, which a client goes on with at any site by its last token.
//
// The origin's events come as they are, but for their ids: in their place clients are given
// tokens (package token), which say where the client stands and at which epoch of its
// session. Who comes back with one is served from there, under the next epoch, once the
// keepers of the session have granted that; the stream of the epoch before ends.
//
// # Flow
//
//	server.go   request → token opened, epoch claimed → the origin asked from the position on
//	stream.go   origin's events → the client's, a token each; beats, renewal, the end
//	socket.go   the same as WebSocket (RFC 6455)
//	keepers.go  which epoch is the newest: questions to other sites, answers to theirs
//	metrics.go  what requests came to
//
// It knows no sessions of the edge and no frames: Links carry its words between sites, and
// Leaving tells that this site gives its clients away.
//
// # Concurrency
//
// A stream is read by one goroutine, that of its request; another reads the origin for
// it, and ends with it. A question to keepers has a goroutine for each, which ends with the
// answer or the question's time.
package feed
