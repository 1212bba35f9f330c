package wire

import "encoding/binary"

// Replies writes a reply of the answers of several bodies, one after the other, with the
// flags of the first. Each holds answers alone, whose names point at the question, as
// addresses of the name asked do; with any other kind the length is 0, and the query is
// left to the slow path. See Reply.
func (x *Index) Replies(out []byte, q *Query, bodies []*Body, o *Options) int {
	whole, size := *bodies[0], 0
	whole.counts, whole.nfix = [3]uint16{}, 0
	for _, b := range bodies {
		if b == nil || b.nfix > 0 || b.counts[1] > 0 || b.counts[2] > 0 {
			return 0
		}
		size += int(b.len)
		whole.counts[0] += b.counts[0]
	}
	if size > MaxUDP {
		return 0
	}
	whole.len = uint16(size)
	n := x.Reply(out, q, &whole, o) // with as many octets as these, whatever follows the first
	if n == 0 {
		return 0
	}
	at := headerLen + len(q.Question)
	for _, b := range bodies {
		at += copy(out[at:], x.arena[b.off:b.off+uint32(b.len)])
	}
	binary.BigEndian.PutUint16(out[6:], whole.counts[0])
	return n
}
