package edge

import (
	"net"
	"net/netip"
	"os"
	"time"

	"rhumb/edge/tcprepair"
)

// guestKernel is what moving a guest needs of the kernel. Immutable.
type guestKernel struct {
	examine func(*os.File) (local, peer netip.AddrPort, err error)
	dump    func(*os.File) (silenced, tcprepair.State, error)
	restore func(tcprepair.State, tcprepair.Queues, time.Duration) (revivable, error)
	wake    func(*os.File) error
	reset   func(*net.TCPConn) error
}

// silenced is a connection that was dumped.
type silenced interface {
	Output() ([]byte, error)
	Abort() error  // it speaks again
	Drop() error   // after Abort: its client hears a reset
	Vanish() error // without a packet
	Close() error  // of our descriptor
}

// revivable is a connection that was made again and does not speak yet.
type revivable interface {
	File() (*os.File, error)
	Activate() (*net.TCPConn, error)
	Close() error
}

// linuxKernel is package tcprepair.
func linuxKernel() guestKernel {
	return guestKernel{
		examine: tcprepair.Examine,
		dump: func(f *os.File) (silenced, tcprepair.State, error) {
			d, err := tcprepair.DumpFile(f)
			if err != nil {
				return nil, tcprepair.State{}, err
			}
			return d, d.State, nil
		},
		restore: func(st tcprepair.State, q tcprepair.Queues, elapsed time.Duration) (revivable, error) {
			r, err := tcprepair.RestoreQueues(st, q, elapsed)
			if err != nil {
				return nil, err
			}
			return r, nil
		},
		wake:  tcprepair.Wake,
		reset: func(c *net.TCPConn) error { return tcprepair.Reset(c) },
	}
}
