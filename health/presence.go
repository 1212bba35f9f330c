package health

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Presence is a unit's side of Units: it says what the unit serves, and ticks. It
// connects again for as long as it runs; where there is no health role nobody hears.
type Presence struct {
	path, unit string
	listen     func() []netip.AddrPort
}

// NewPresence returns the presence of a unit. listen returns the addresses that
// it serves now; it is asked at every tick and must be cheap.
func NewPresence(path, unit string, listen func() []netip.AddrPort) *Presence {
	return &Presence{path: path, unit: unit, listen: listen}
}

// Run ticks until the context ends, and then says goodbye.
func (p *Presence) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", p.path)
		if err == nil {
			p.tick(ctx, conn)
			conn.Close()
		}
		pause(ctx, retryAccept)
	}
	return nil
}

// tick speaks on one connection until it fails or the context ends.
func (p *Presence) tick(ctx context.Context, conn net.Conn) {
	enc := json.NewEncoder(conn)
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	var said []netip.AddrPort
	for first := true; ; first = false {
		conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		var err error
		if now := p.listen(); first || !slices.Equal(now, said) {
			said = slices.Clone(now)
			err = enc.Encode(Unit{Name: p.unit, Listen: said})
		} else {
			_, err = conn.Write([]byte{'\n'})
		}
		if err != nil {
			return
		}
		select {
		case <-ctx.Done():
			enc.Encode(Unit{Name: p.unit, Bye: true}) // whether it is heard, the probes will show
			return
		case <-t.C:
		}
	}
}
