// Package tap tells a collector what was asked and answered, as dnstap over Frame Streams, without keeping the server waiting.
//
// # Words
//
//   - Ring: the octets of one worker's queries and replies, bounded. The worker copies
//     into it and never waits; what finds no room is counted and gone.
//   - Tap: what drains the rings, writes dnstap's messages (AUTH_QUERY and
//     AUTH_RESPONSE, dnstap.info), and streams them to a collector on a unix socket or
//     over TCP, with the handshake of both directions.
//
// # Flow
//
//	worker ─▶ Ring (copy) ─┐
//	worker ─▶ Ring (copy) ─┼─▶ Tap.Run ─▶ protobuf ─▶ frames ─▶ collector
//	TCP, TLS, HTTPS ───────┘
package tap
