package detect

// outbox gathers datagrams and sends them in batches. It belongs to the loop.
type outbox struct {
	sock    socket
	packets []packet
	queued  int
	body    []byte // room for one body
	asks    uint32 // newest numbers of the kinds that are counted
	replies uint32
	votes   uint32
}

// put queues a datagram for a peer.
func (o *outbox) put(p *peer, b *Beat) {
	if headerSize+len(b.Body)+tagSize > MaxDatagram {
		p.out[Failed].Add(1)
		return
	}
	if o.queued == len(o.packets) {
		o.flush()
	}
	k := &o.packets[o.queued]
	k.n, k.to = len(p.seal.seal(b, k.buf[:0])), p
	o.queued++
}

// flush sends what is queued. A lost datagram is what beats are for, so errors are
// counted and no more.
func (o *outbox) flush() {
	for out := o.packets[:o.queued]; len(out) > 0; {
		n, err := o.sock.write(out)
		for i := range out[:n] {
			out[i].to.out[OK].Add(1)
			out[i].to.octets.Add(uint64(out[i].n))
		}
		if err != nil && n < len(out) {
			out[n].to.out[Failed].Add(1)
			n++
		}
		out = out[n:]
	}
	o.queued = 0
}
