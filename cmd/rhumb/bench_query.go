package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// benchQueries are packed ahead, so that making one costs a copy.
type benchQueries struct {
	packed [][]byte
	// subnet is where the blocks of clients are taken from; invalid: no option is sent.
	subnet netip.Prefix
}

// The source lengths of client subnets (RFC 7871 section 11.1).
const (
	benchBits4 = 24
	benchBits6 = 56
)

// readNames reads lines of NAME and TYPE; the type may be left out.
func readNames(r io.Reader, qtype uint16, q *benchQueries) error {
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		line, _, _ := strings.Cut(in.Text(), "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		t := qtype
		if len(f) > 1 {
			var ok bool
			if t, ok = dns.StringToType[strings.ToUpper(f[1])]; !ok {
				return fmt.Errorf("line %d: %q is no type", n, f[1])
			}
		}
		if err := q.add(f[0], t); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return in.Err()
}

// generate adds n names of a zone: h0, h1 and so on.
func (q *benchQueries) generate(zone string, n int, qtype uint16) error {
	for i := range n {
		if err := q.add(fmt.Sprintf("h%d.%s", i, strings.TrimPrefix(dns.Fqdn(zone), ".")), qtype); err != nil {
			return err
		}
	}
	return nil
}

// add packs a query. The subnet comes last, so that its octets are the message's.
func (q *benchQueries) add(name string, qtype uint16) error {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	if q.subnet.IsValid() {
		family, bits := uint16(1), uint8(benchBits4)
		if q.subnet.Addr().Is6() {
			family, bits = 2, benchBits6
		}
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, Address: q.subnet.Addr().AsSlice()}}
	}
	b, err := m.Pack()
	if err != nil {
		return fmt.Errorf("%q is no domain name: %w", name, err)
	}
	q.packed = append(q.packed, b)
	return nil
}

// write writes a query of any of the names into out and returns its length.
func (q *benchQueries) write(out []byte, id uint16, r *rand.Rand) int {
	n := copy(out, q.packed[r.IntN(len(q.packed))])
	binary.BigEndian.PutUint16(out, id)
	if q.subnet.IsValid() {
		randomBlock(out[:n], q.subnet, r)
	}
	return n
}

// randomBlock writes the octets of a random block into the end of a query.
func randomBlock(out []byte, within netip.Prefix, r *rand.Rand) {
	bits := benchBits4
	if within.Addr().Is6() {
		bits = benchBits6
	}
	block := out[len(out)-bits/8:]
	fixed, x := within.Masked().Addr().AsSlice(), r.Uint64()
	for i := range block {
		keep := byte(0xff) // bits of the prefix in this octet
		if free := 8*(i+1) - within.Bits(); free > 0 {
			keep = byte(0xff << min(free, 8))
		}
		block[i] = fixed[i]&keep | byte(x>>(8*i))&^keep
	}
}
