package forward

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxGathered bounds the datagrams in one call: older kernels take no more (Linux 4.18).
	maxGathered = 64
	// mostGathered bounds their octets: those of one UDP datagram before it is cut.
	mostGathered = 65000
)

// tunneller sends packets to the sites that own their sessions.
type tunneller interface {
	tunnel(now time.Time, site string, packet []byte)
}

// outbox gathers datagrams to a site, so that the kernel takes many in one call and cuts
// them only where they leave (UDP_SEGMENT of udp(7)). They are of one size, but that the
// last one may be shorter. It belongs to the goroutine that reads strays, which empties
// it whenever it has to wait.
type outbox struct {
	*Forwarder
	to         *peer
	sealed     []byte // one behind the other
	size, last int    // of the first and of the last, in octets
	n          int
	control    []byte
	// alone is set where the kernel, or the device, cannot cut them.
	alone bool
}

func newOutbox(f *Forwarder) *outbox {
	o := &outbox{Forwarder: f, sealed: make([]byte, 0, mostGathered), control: make([]byte, unix.CmsgSpace(2))}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&o.control[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return o
}

// tunnel gathers a packet, or sends what cannot be gathered behind all that was.
func (o *outbox) tunnel(now time.Time, site string, packet []byte) {
	p := o.peers.Load().find(site)
	if p == nil {
		return // the peer left the group since
	}
	if r, via := o.relayTo(p); o.alone || via != nil || len(packet) > o.roomTo(now, p, r, nil) {
		o.flush(now)
		o.Forwarder.tunnel(now, site, packet)
		return
	}
	size := overhead + len(packet)
	if o.to != p || size > o.size || o.last < o.size || o.n == maxGathered || len(o.sealed)+size > mostGathered {
		o.flush(now)
	}
	if o.n == 0 {
		o.to, o.size = p, size
	}
	at := len(o.sealed)
	o.sealed = append(slices.Grow(o.sealed, size)[:at+headerSize], packet...)
	d := p.out.close(o.sealed[at:], kindPacket, o.id, p.salt, p.seq.Add(1))
	o.sealed = o.sealed[:at+len(d)]
	o.n, o.last = o.n+1, size
}

// flush sends what was gathered.
func (o *outbox) flush(now time.Time) {
	if o.n == 0 {
		return
	}
	if err := o.write(); err == nil {
		o.to.packets.Add(float64(o.n))
		o.to.octets.Add(float64(len(o.sealed) - o.n*overhead))
	} else {
		o.apart(now, err)
	}
	o.sealed, o.n = o.sealed[:0], 0
}

// write hands what was gathered to the kernel.
func (o *outbox) write() error {
	e := o.ends.Load()
	if e == nil {
		return nil // those who read end as well
	}
	if o.n == 1 {
		_, err := e.tunnel.conn.WriteToUDPAddrPort(o.sealed, o.to.Addr)
		return err
	}
	binary.NativeEndian.PutUint16(o.control[unix.CmsgLen(0):], uint16(o.size))
	_, _, err := e.tunnel.conn.WriteMsgUDPAddrPort(o.sealed, o.control, o.to.Addr)
	return err
}

// apart sends one by one what the kernel did not take together: a path has become
// smaller, say. From then on all go alone where it says that it cannot cut.
func (o *outbox) apart(now time.Time, err error) {
	if o.n > 1 && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOPROTOOPT)) {
		o.alone = true
		o.log.Info("tunnel: datagrams go one by one", "err", err)
	}
	for b := o.sealed; len(b) > 0; b = b[min(o.size, len(b)):] {
		d := b[:min(o.size, len(b))]
		o.Forwarder.tunnel(now, o.to.Site, d[headerSize:len(d)-tagSize])
	}
}
