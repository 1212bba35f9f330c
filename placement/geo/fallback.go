package geo

import (
	"bytes"
	_ "embed"
)

// builtin is the stored form of a country table; SOURCES.md beside it says where
// it comes from and on what terms.
//
//go:embed default.bin.gz
var builtin []byte

// Default returns the embedded country table, for fleets whose operator has
// named no database. Each call compiles it anew, in about 60 ms; keep the result.
func Default() (*Table, error) { return Decode(bytes.NewReader(builtin)) }
