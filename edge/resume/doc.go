// Package resume goes on with downloads, event streams and WebSockets whose connection broke, at whichever site the name leads to then.
//
// It is for programs that use a service of Rhumb, and needs nothing but the
// standard library: copy it, or import it.
//
//	client := &http.Client{Transport: &resume.Transport{}}
//	resp, err := client.Get("https://vod.example/film.mp4") // resp.Body goes on by itself
//
//	s, err := resume.Open(ctx, "https://live.example/scores", resume.Options{})
//	for {
//		e, err := s.Next()
//		…
//	}
//
// # Downloads
//
// A response with a strong ETag and a length is read to its end: when the
// connection breaks or falls silent, the rest is asked for on a new one, by
// Range and If-Range (RFC 9110, sections 13.1.5 and 14.2), the name being
// resolved anew. All sites give the same ETag to the same bytes, since it is
// their hash. If the object is another one by now, the body ends with ErrChanged:
// the two are never mixed.
//
// # Event streams
//
// The id of an event is a sealed token. Any site opens it and goes on behind that
// event, if nobody else has gone on since: else the stream ends with ErrStale. A
// token is a secret, so streams are opened over https alone.
//
// # WebSockets
//
// They go on in the same way (OpenSocket), where the service marks its messages: the
// site says a token before the message behind which it is good. What was sent when
// a connection broke may have arrived or not.
//
// # How hard it tries
//
// The first try is at once, the next ones after a random part of a time that
// doubles. A connection that brought something gives the whole budget back.
//
// A Transport is safe for concurrent use, a body, a Stream or a Socket's Next
// belongs to one goroutine. There are no goroutines of its own.
package resume
