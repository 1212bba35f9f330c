package recording

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
)

// Exchange is a query, and the reply that was seen; nil where none was.
type Exchange struct {
	Client, Server netip.AddrPort
	Query, Reply   []byte
}

// openKey is what a reply has in common with its query. Names are not compared: who
// asks again with the same ID from the same port asks the same.
type openKey struct {
	client, server netip.AddrPort
	id             uint16
}

// maxOpen is how many queries wait for their reply; the oldest is given up first, as
// an unanswered one.
const maxOpen = 100_000

// Pair reads a file and passes on one exchange after another: in the order of the
// replies, those without one at the end. A reply whose query is not in the file is
// skipped. The error is that of the file, after all that was before it.
func Pair(r *Reader, each func(Exchange)) error {
	open := make(map[openKey]*Exchange)
	var order []openKey
	giveUp := func(k openKey) {
		if e := open[k]; e != nil {
			delete(open, k)
			each(*e)
		}
	}
	var failed error
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			failed = err
			break
		}
		k := openKey{p.From, p.To, binary.BigEndian.Uint16(p.Data)}
		if p.Data[2]&0x80 != 0 {
			k.client, k.server = k.server, k.client
			e := open[k]
			if e == nil {
				r.Skipped++
				continue
			}
			delete(open, k)
			e.Reply = p.Data
			each(*e)
			continue
		}
		giveUp(k) // asked again before it was answered
		open[k] = &Exchange{Client: p.From, Server: p.To, Query: p.Data}
		if order = append(order, k); len(order) > maxOpen {
			giveUp(order[0])
			order = order[1:]
		}
	}
	for _, k := range order {
		giveUp(k)
	}
	return failed
}
