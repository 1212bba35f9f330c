// Package lpm finds the longest prefix containing an address, in a table frozen after Build.
package lpm

import (
	"iter"
	"net/netip"
)

type Entry struct {
	Prefix netip.Prefix
	Value  uint16
}
type Table struct{ e []Entry }

const SplitBase = 1 << 31

func Build(entries []Entry) (*Table, error)                                      { return &Table{entries}, nil }
func (t *Table) Lookup(a netip.Addr) (value uint16, match netip.Prefix, ok bool) { return }
func (t *Table) Len() int                                                        { return len(t.e) }
func (t *Table) All() iter.Seq2[netip.Prefix, uint16]                            { return nil }
func (t *Table) Digest() [32]byte                                                { return [32]byte{} }

type Blocks struct{}

func (t *Table) Fold(label []uint32, none uint32) *Blocks { return &Blocks{} }
func (b *Blocks) Block(a netip.Addr) netip.Prefix         { return netip.Prefix{} }
