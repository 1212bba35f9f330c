//go:build race

package detect

// raced tells that the race detector is on, which costs ten times the CPU.
const raced = true
