// Package house tests the rules of this code base: who may import whom, which
// library enters by which door, what every package says of itself, and what
// stands at the top of the tree. It holds no code of its own.
package house
