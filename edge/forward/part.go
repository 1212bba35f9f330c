package forward

import (
	"encoding/binary"
	"errors"
	"time"
)

// A packet too large for the path goes as parts, each a datagram of its own:
// never as IP fragments, which middle boxes drop, and without an ICMP error to
// a client who did nothing wrong.
//
//	0 number of the packet, 4
//	4 index, 1
//	5 count, 1
//	6 octets of the packet
const (
	partHeader = 6
	// maxParts holds a jumbo frame in pieces for the smallest path.
	maxParts = 8
	// partLife is how long the parts that came wait for the others.
	partLife = 100 * time.Millisecond
	// maxPartial is how many packets of a peer may be incomplete at once.
	maxPartial = 64
)

var errPart = errors.New("part with impossible index or count")

// splitParts calls send with the body of each part.
func splitParts(number uint32, packet []byte, size int, send func(body []byte) error) error {
	count := (len(packet) + size - 1) / size
	if count > maxParts {
		return errPart
	}
	for i := range count {
		piece := packet[i*size : min(len(packet), (i+1)*size)]
		body := binary.BigEndian.AppendUint32(make([]byte, 0, partHeader+len(piece)), number)
		body = append(body, byte(i), byte(count))
		if err := send(append(body, piece...)); err != nil {
			return err
		}
	}
	return nil
}

// partial is a packet of which some parts have come.
type partial struct {
	number uint32
	until  time.Time
	count  int
	left   int
	parts  [maxParts][]byte
}

// joiner puts the parts of one peer together. One goroutine uses it.
type joiner struct {
	open []*partial // in order of their first part
}

// add takes a part's body and returns the packet when it is complete, else nil.
func (j *joiner) add(now time.Time, body []byte) ([]byte, error) {
	if len(body) <= partHeader {
		return nil, errShort
	}
	number, index, count := binary.BigEndian.Uint32(body), int(body[4]), int(body[5])
	if count < 1 || count > maxParts || index >= count {
		return nil, errPart
	}
	p := j.find(now, number, count)
	// The tag is right, so only a peer of another version, or a number that
	// came round, gets here.
	if p.count != count || p.parts[index] != nil {
		return nil, errPart
	}
	p.parts[index] = append([]byte(nil), body[partHeader:]...)
	p.left--
	if p.left > 0 {
		return nil, nil
	}
	j.drop(p)
	var packet []byte
	for _, piece := range p.parts[:count] {
		packet = append(packet, piece...)
	}
	return packet, nil
}

// find returns the partial packet of this number, a new one if need be, and
// forgets those whose time is up.
func (j *joiner) find(now time.Time, number uint32, count int) *partial {
	for len(j.open) > 0 && (!now.Before(j.open[0].until) || len(j.open) > maxPartial) {
		j.open = j.open[1:]
	}
	for _, p := range j.open {
		if p.number == number {
			return p
		}
	}
	p := &partial{number: number, until: now.Add(partLife), count: count, left: count}
	j.open = append(j.open, p)
	return p
}

func (j *joiner) drop(p *partial) {
	for i, q := range j.open {
		if p == q {
			j.open = append(j.open[:i], j.open[i+1:]...)
			return
		}
	}
}
