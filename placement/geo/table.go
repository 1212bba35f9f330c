package geo

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"net/netip"
	"slices"
	"time"

	"rhumb/placement/lpm"
)

// Table maps prefixes to classes and classes to Locations. It is immutable and
// safe for concurrent use.
type Table struct {
	prefixes *lpm.Table
	classes  []class // by id
	info     Info
	digest   string
	routes   *Routes // by which it was grouped, nil if it was not
}

// Info tells where a table comes from and on what terms. It is no part of the
// digest: only content decides what is answered.
type Info struct {
	Name        string    // for people: data set or file names
	BuildTime   time.Time // of the data, not of the compilation
	Licence     string    // SPDX identifier, or what the publisher says
	Attribution string    // the line that the licence wants shown, if any
}

// newTable makes a table of prefixes whose values index classes.
func newTable(info Info, prefixes *lpm.Table, classes []class) *Table {
	t := &Table{prefixes: prefixes, classes: classes, info: info}
	t.digest = t.sum()
	return t
}

// gather takes entries in address order.
func gather(entries iter.Seq[lpm.Entry]) (*lpm.Builder, error) {
	b := lpm.NewBuilder()
	for e := range entries {
		if err := b.Add(e); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Class returns the class of an address and the prefix that decided. ok is false
// when no prefix of the table covers the address. It does not allocate.
func (t *Table) Class(a netip.Addr) (id uint16, match netip.Prefix, ok bool) {
	return t.prefixes.Lookup(a)
}

// Locations returns the Location of every class, indexed by class id.
func (t *Table) Locations() []Location {
	list := make([]Location, len(t.classes))
	for i, c := range t.classes {
		list[i] = c.location()
	}
	return list
}

// Location returns where an address is; ok is false when the table does not know.
func (t *Table) Location(a netip.Addr) (l Location, ok bool) {
	id, _, ok := t.Class(a)
	if !ok {
		return Location{}, false
	}
	return t.classes[id].location(), true
}

// Entries yields every prefix and its class id in address order.
func (t *Table) Entries() iter.Seq2[netip.Prefix, uint16] { return t.prefixes.All() }

// Prefixes is the search structure itself, for callers that fold labels over it.
func (t *Table) Prefixes() *lpm.Table { return t.prefixes }

// Len is the number of prefixes.
func (t *Table) Len() int { return t.prefixes.Len() }

// Info tells where the table comes from.
func (t *Table) Info() Info { return t.info }

// Digest names the content: SHA-256 in hex over prefixes, class ids and the
// Locations behind them.
func (t *Table) Digest() string { return t.digest }

// Routes is the routing table by which the clients were grouped, nil without one.
func (t *Table) Routes() *Routes { return t.routes }

// sum is taken over the prefixes' own digest and each class in the order of ids:
// latitude and longitude of the cell as 16-bit integers, then country and
// continent, each ended by a zero byte.
func (t *Table) sum() string {
	d := t.prefixes.Digest()
	b := slices.Clone(d[:])
	for _, c := range t.classes {
		b = binary.BigEndian.AppendUint16(b, uint16(c.lat))
		b = binary.BigEndian.AppendUint16(b, uint16(c.lon))
		b = append(append(b, c.country...), 0)
		b = append(append(b, c.continent...), 0)
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
