package zone

import (
	"hash/maphash"
	"slices"
	"strings"
)

// family holds the nodes right below one, in the order in which they came, so that a walk
// over a large zone goes through memory as it was filled. It is half as large as a map of
// its names, and copied in a hundredth of the time, which With needs for every mark.
type family struct {
	nodes []*node
	// slots lead from the hash of a label to its place in nodes + 1: open addressing, a
	// power of two. A few nodes are found without.
	slots []uint32
	seed  maphash.Seed
}

// fewNodes is how many are looked through one by one.
const fewNodes = 8

// place returns where the node of a label is, -1 for none.
func (f *family) place(label string) int {
	if len(f.slots) == 0 {
		return slices.IndexFunc(f.nodes, func(n *node) bool { return n.has(label) })
	}
	mask := uint64(len(f.slots) - 1)
	for i := maphash.String(f.seed, label) & mask; f.slots[i] > 0; i = (i + 1) & mask {
		if at := int(f.slots[i] - 1); f.nodes[at].has(label) {
			return at
		}
	}
	return -1
}

// add adds a node whose label is not there yet.
func (f *family) add(n *node) {
	f.nodes = append(f.nodes, n)
	switch {
	case 2*len(f.nodes) <= len(f.slots):
		f.enter(len(f.nodes) - 1)
	case len(f.nodes) > fewNodes:
		if len(f.slots) == 0 {
			f.seed = maphash.MakeSeed()
		}
		f.slots = make([]uint32, max(4*fewNodes, 2*len(f.slots)))
		for i := range f.nodes {
			f.enter(i)
		}
	}
}

// enter lets slots lead to a node.
func (f *family) enter(at int) {
	mask := uint64(len(f.slots) - 1)
	i := maphash.String(f.seed, f.nodes[at].label()) & mask
	for f.slots[i] > 0 {
		i = (i + 1) & mask
	}
	f.slots[i] = uint32(at + 1)
}

// clone returns a family which may be changed; nil is one without nodes.
func (f *family) clone() *family {
	if f == nil {
		return &family{}
	}
	return &family{nodes: slices.Clone(f.nodes), slots: slices.Clone(f.slots), seed: f.seed}
}

// below returns the nodes right below one.
func (n *node) below() []*node {
	if n == nil || n.kids == nil {
		return nil
	}
	return n.kids.nodes
}

// kid returns the node of a label right below one, or nil.
func (n *node) kid(label string) *node {
	if n == nil || n.kids == nil {
		return nil
	}
	if at := n.kids.place(label); at >= 0 {
		return n.kids.nodes[at]
	}
	return nil
}

// has tells whether a label is the first one of a node's name.
func (n *node) has(label string) bool {
	return len(n.name) > len(label) && n.name[len(label)] == '.' && strings.HasPrefix(n.name, label)
}

// label returns the first label of a node's name.
func (n *node) label() string {
	for i := range len(n.name) {
		if n.name[i] == '.' && !escaped(n.name, i) {
			return n.name[:i]
		}
	}
	return n.name
}
