// Package etc carries the samples that the binary needs to run by itself: the
// lab's fleet, its root zone, and nothing else.
package etc

import "embed"

//go:embed lab
var Lab embed.FS
