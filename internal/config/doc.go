// Package config reads node and fleet files once, strictly, into checked values;
// errors carry file, line, column and excerpt.
//
// Two kinds of file. A node file says who this machine is (site, roles,
// listeners, store, peers); `rhumb serve` reads it and sends it nowhere. A fleet
// file, with the documents in sites/ and services/ beside it and the zone files
// it names, says what the whole fleet shall do; `rhumb apply` reads it, and
// `rhumb serve` never does.
//
// Reading is strict: an unknown or doubled key is an error, an empty selector
// is an error, and so is every reference to something that does not exist. All
// mistakes of a file are reported, not only the first.
//
// # Flow
//
//	bytes → source (syntax, positions) → file types → checks → placement.Fleet, Node
package config
