package detect

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// rowKind says what a row of a trace is.
type rowKind uint8

const (
	rowBeat rowKind = iota
	rowSync         // the time is now at, and every beat up to it has been given
	rowEnd
	rowLeave  // target says goodbye, and is back within slot milliseconds
	rowFormat // the first row: which rows are to be expected
)

// traceFormat is the newest format of traces: 1 has beats, sync and end, and needs no
// row that says so; 2 has goodbyes, too.
const traceFormat = 2

// row is one line of a trace.
type row struct {
	kind        rowKind
	target, via uint32
	at          time.Duration // of arrival, or of the trace's clock
	slot        uint64
}

// Bounds of the numbers in a trace: what is beyond is a mistake, and would
// overflow or eat memory.
const (
	maxTarget = 1<<20 - 1
	maxVia    = 1<<10 - 1
	maxMs     = 1e12 // 31 years
	maxSlot   = 1e12
)

var (
	errFields = errors.New("want target,via,recv_ms,seq or sync,,MS, or end,,MS, or leave,target,recv_ms,within_ms or format,,N,")
	errNumber = errors.New("want a non-negative integer")
)

// parseRow reads a line without its end.
func parseRow(line []byte) (r row, err error) {
	var f [4][]byte
	rest := line
	for i := range 3 {
		k := bytes.IndexByte(rest, ',')
		if k < 0 {
			return row{}, errFields
		}
		f[i], rest = rest[:k], rest[k+1:]
	}
	f[3] = rest
	switch string(f[0]) {
	case "sync":
		r.kind = rowSync
	case "end":
		r.kind = rowEnd
	case "format":
		r.kind = rowFormat
	case "leave": // as a beat, with the target where that has its path
		r.kind, f[0], f[1] = rowLeave, f[1], []byte("0")
	}
	ms, err := number("recv_ms", f[2], maxMs)
	r.at = time.Duration(ms) * time.Millisecond
	if r.kind != rowBeat && r.kind != rowLeave {
		if err == nil && len(f[1])+len(f[3]) > 0 {
			err = errFields
		}
		return r, err
	}
	target, terr := number("target", f[0], maxTarget)
	by, verr := number("via", f[1], maxVia)
	slot, serr := number("seq", f[3], maxSlot)
	r.target, r.via, r.slot = uint32(target), uint32(by), slot
	for _, e := range []error{terr, verr, err, serr} {
		if e != nil {
			return row{}, e
		}
	}
	return r, nil
}

// number reads a decimal number of at most limit.
func number(what string, b []byte, limit uint64) (n uint64, err error) {
	if len(b) == 0 {
		return 0, fmt.Errorf("%s: %w", what, errNumber)
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%s %.20q: %w", what, b, errNumber)
		}
		if n = n*10 + uint64(c-'0'); n > limit {
			return 0, fmt.Errorf("%s %.20q: above %d", what, b, limit)
		}
	}
	return n, nil
}
