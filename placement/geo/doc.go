// Package geo compiles MaxMind and flat databases and MRT tables into the class
// table which says where an address is.
//
// # Words
//
// A Location is a point with a country. Points are rounded to the centre of a
// cell of half a degree (at most 40 km from the point), because steering needs
// no more and 15 million networks of a city database fall into some 20,000
// cells. A class is one Location as the rest of Rhumb sees it: a small number
// that plans, costs and demand are indexed by. A Table maps prefixes to classes.
//
// # Flow
//
//	files ─ Open ─▶ networks ─ Compile ─▶ Table ─ With(overrides) ─▶ Table
//	                                        ▲
//	embedded country table ─ Default ───────┤
//	MRT files ─ OpenRoutes ─▶ Routes ─ Grouped
//
// Open recognises a database by the fields of its records, never by the type
// string of its metadata, which differs from one publisher to the next. Compile
// rounds, numbers the classes in the order of their content, and merges sibling
// networks of one class. With lays an operator's own prefixes over a table.
//
// Source watches the files of a table and swaps in a new one when its content,
// named by Digest, has changed. A file that cannot be read or compiled changes
// nothing but the status.
//
// # Routes
//
// OpenRoutes reads routing tables (MRT, RFC 6396) into Routes: the routed prefix of
// an address, the AS that announces it and that AS's neighbour. Who shares a routed
// prefix is administered together and mostly near to each other, so Grouped puts
// all of a prefix where three quarters of its addresses are; that drops the noise
// of data sets (a /29 registered elsewhere) and fills their holes. With can then
// place all clients of an AS.
//
// # How wrong it is
//
// The embedded table knows countries only: every client of a country is taken
// to be at one point, the place named by its busiest time zone. In a small
// country that is off by some tens of kilometres, in a large one by up to
// 2,000 (a client in Seattle counts as Chicago, one in Vladivostok, 6,400 km off,
// as Moscow). It also reports where a network is registered, which for
// anycast, satellite and holding companies is not where the client is. A city
// database is off by 10 to 50 km for fixed lines and more for mobile ones. What
// the operator knows better belongs into overrides.
//
// # Determinism
//
// All cell arithmetic is on integers. The same files give the same Digest on
// every platform, so nodes can compare their tables by it.
package geo
