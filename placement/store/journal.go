package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
)

// record is one line of a file store: what one transaction changed.
type record struct {
	// Base begins a file: the content as of Rev follows in the same record.
	Base bool       `json:"base,omitempty"`
	Rev  int64      `json:"rev"`
	Set  []setting  `json:"set,omitempty"`
	Del  []string   `json:"del,omitempty"`
	Term []termLine `json:"lease,omitempty"` // granted or renewed
	Gone []int64    `json:"gone,omitempty"`  // leases which ended
}

// setting is one key with its value.
type setting struct {
	Key   string `json:"k"`
	Value []byte `json:"v,omitempty"`
	Mod   int64  `json:"m,omitempty"` // in a Base; else the record's revision
	Lease int64  `json:"l,omitempty"`
}

// termLine is a lease: its length and its end, in milliseconds.
type termLine struct {
	ID    int64 `json:"id"`
	TTL   int64 `json:"ttl"`
	Until int64 `json:"until"` // Unix time
}

func (t termLine) lease() leaseTerm {
	return leaseTerm{ttl: time.Duration(t.TTL) * time.Millisecond, until: time.UnixMilli(t.Until)}
}

func lineOf(id int64, l leaseTerm) termLine {
	return termLine{id, l.ttl.Milliseconds(), l.until.UnixMilli()}
}

// encodeRecord returns a line: CRC-32C in hex, a space, JSON.
func encodeRecord(r record) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%08x ", checksum(b)), append(b, '\n')...), nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// errTorn says that a line is not whole: a crash in the middle of a write, or
// somebody is writing it now.
var errTorn = errors.New("line is not whole")

// decodeRecord reads the first line of b and returns how long it is.
func decodeRecord(b []byte) (record, int, error) {
	var r record
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return r, 0, errTorn
	}
	sum, text, ok := bytes.Cut(b[:end], []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || len(sum) != 8 || err != nil || checksum(text) != uint32(want) {
		return r, 0, errors.New("checksum does not match")
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, 0, err
	}
	return r, end + 1, nil
}

// replay makes a record true in a machine.
func (m *machine) replay(r record) error {
	if r.Base {
		*m = machine{rev: r.Rev, floor: r.Rev, pairs: make(map[string]pair), leases: make(map[int64]leaseTerm), wake: m.wake}
		for _, s := range r.Set {
			m.pairs[s.Key] = pair{s.Key, s.Value, s.Mod, s.Lease}
		}
		defer m.stir()
	} else {
		changes := r.changes()
		if len(changes) > 0 && r.Rev != m.rev+1 || len(changes) == 0 && r.Rev != m.rev {
			return fmt.Errorf("revision %d follows %d", r.Rev, m.rev)
		}
		m.commit(changes)
	}
	for _, t := range r.Term {
		m.leases[t.ID] = t.lease()
	}
	for _, id := range r.Gone {
		delete(m.leases, id)
	}
	return nil
}

func (r record) changes() []change {
	var out []change
	for _, s := range r.Set {
		out = append(out, change{pair: pair{s.Key, s.Value, r.Rev, s.Lease}})
	}
	for _, k := range r.Del {
		out = append(out, change{pair: pair{key: k, mod: r.Rev}, deleted: true})
	}
	return out
}

// recordOf is the reverse of changes.
func recordOf(rev int64, changes []change) record {
	r := record{Rev: rev}
	for _, c := range changes {
		if c.deleted {
			r.Del = append(r.Del, c.key)
		} else {
			r.Set = append(r.Set, setting{Key: c.key, Value: c.value, Lease: c.lease})
		}
	}
	if len(changes) > 0 {
		r.Rev = rev + 1
	}
	return r
}

// base is the whole content as one record, which begins a new file.
func (m *machine) base() record {
	r := record{Base: true, Rev: m.rev}
	for _, p := range m.query(query{span: span{"", "\xff"}}) {
		r.Set = append(r.Set, setting{p.key, p.value, p.mod, p.lease})
	}
	for _, id := range m.expired(time.UnixMilli(1 << 52)) { // all of them, in order
		r.Term = append(r.Term, lineOf(id, m.leases[id]))
	}
	return r
}
