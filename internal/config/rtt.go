package config

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"net/netip"
	"strconv"

	"rhumb/placement"
)

// The bounds of a matrix: what travels with the fleet, and what no client waits for.
const (
	maxRTTs  = 20_000
	maxRTTms = 10_000
)

// rtt reads the file of measured round trips: a line each of FROM,SITE,MS, where FROM is a
// prefix of clients or a site. Its mistakes are told with their place in that file.
func (b *builder) rtt(root *document) {
	if root.RTT == "" {
		return
	}
	file := resolve(root.dir, root.RTT)
	data, err := b.read(file)
	if err != nil {
		root.fail([]string{"rtt"}, "%s: %s", file, rootCause(err))
		return
	}
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.Comment = 3, true, '#'
	seen := make(map[placement.RTT]bool)
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			root.errs = append(root.errs, &Error{File: file, Line: bad.Line, Column: max(bad.Column, 1), Reason: bad.Err.Error() + ": want FROM,SITE,MS"})
			return
		}
		one, at, why := b.roundTrip(fields)
		key := one
		key.Cost = 0
		switch {
		case why != "":
		case seen[key]:
			why = "stands twice"
		case len(b.out.RTT) == maxRTTs:
			at, why = 0, "more than "+strconv.Itoa(maxRTTs)+" round trips"
		}
		if why != "" {
			line, column := r.FieldPos(at)
			root.errs = append(root.errs, &Error{File: file, Line: line, Column: column, Reason: why})
			return // one tells enough: the next are likely of its kind
		}
		seen[key] = true
		b.out.RTT = append(b.out.RTT, one)
	}
}

// roundTrip reads one line; why says what is wrong with which field.
func (b *builder) roundTrip(fields []string) (out placement.RTT, at int, why string) {
	if p, err := netip.ParsePrefix(fields[0]); err == nil {
		if out.Prefix = p; p != p.Masked() {
			return out, 0, "has bits behind its length; the net is " + p.Masked().String()
		}
	} else if out.Near = fields[0]; b.out.Site(out.Near) == nil {
		return out, 0, strconv.Quote(fields[0]) + " is neither a prefix of clients nor a site"
	}
	if out.Site = fields[1]; b.out.Site(out.Site) == nil {
		return out, 1, "there is no site " + strconv.Quote(fields[1])
	}
	ms, err := strconv.ParseFloat(fields[2], 64)
	if err != nil || !(ms >= 0 && ms <= maxRTTms) { // so that NaN fails
		return out, 2, strconv.Quote(fields[2]) + " is no round trip of 0 to " + strconv.Itoa(maxRTTms) + " ms"
	}
	out.Cost = placement.Cost(math.Round(ms * 16))
	return out, 0, ""
}
