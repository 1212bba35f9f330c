// Package content keeps what an edge serves: objects, named by the hash of their bytes, from a directory or an HTTP origin.
//
// Two sites that have one hash have one content, so a response that began at one of them
// can go on at the other. That is why nothing is served unchecked: each block is compared
// with its hash when it is read, and not one octet of a block that differs goes out.
//
// # Words
//
//   - Object: an immutable byte string. Its hash is the SHA-256 over the list of the SHA-256
//     of its blocks of BlockSize octets, the last one shorter.
//   - Name: a path as a client asks for it, cleaned, "/a/b". It stands for one object
//     today and perhaps for another tomorrow; those who began with the old one end with it.
//   - Entry: what a name stands for when it is asked for: an object, a copy that is on its
//     way, or a status that says why there is nothing.
//   - Library, Origin: the two sources of entries. Both find objects by name and by hash,
//     and have Run for their upkeep.
//   - Copy: an origin's object on its way here. Its readers follow it; it has no hash yet,
//     so what they are sent can be continued nowhere else.
//
// # Flow
//
//	library.go  name → file → Object; renamed and removed files, old hashes for a while
//	origin.go   name → GET → spool file → Object; If-None-Match (RFC 9110, section 13.1.2) later
//	ahead.go    the same for nobody yet, and given up when nobody comes
//	entry.go    what is found; waiting for the whole
//	object.go   blocks and their hashes
//	cache.go    checked blocks in memory, shared by all sources
//	stamp.go    whether a file has changed
//
// It knows neither sessions nor requests: which part of an object is sent, with which
// fields, is its parent's to decide.
package content
