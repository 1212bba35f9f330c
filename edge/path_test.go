//go:build e2e

package edge

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pathArgs say what a path between client and sites does to packets.
type pathArgs struct {
	Delay time.Duration // each way
	Loss  int           // in a thousand, each way
	// Large has segments pass as a NIC takes them, many at once (TSO): a router's work is
	// not what is tried.
	Large bool
	// Client is the namespace of the client, whose end of the path is there: a router more
	// would cost more than all the rest.
	Client string
}

// The ends of a path: in the router's namespace, and in the client's.
const sitesEnd, clientsEnd = "path0", "path1"

// tun makes a TUN device in the namespace of the thread. Where it leads to is the caller's.
func tun(name string, large bool) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	if !large {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return fd, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fd, err
	}
	return fd, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
}

// tunIn makes one in another namespace, from a thread that ends with it.
func tunIn(space, name string, large bool) (fd int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var ns int
		if ns, err = unix.Open("/run/netns/"+space, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(ns)
		if err = unix.Setns(ns, unix.CLONE_NEWNET); err == nil {
			fd, err = tun(name, large)
		}
	}()
	<-done
	return fd, err
}

// pathRole delays and loses what is routed to a TUN device and gives it back to
// the host. "hold" keeps the data that comes from the sites back, "flush" lets it
// go, what came before "mark" in reverse: its receiver acknowledges all at once; "drop"
// loses it. Every line is answered by the count of what came.
func pathRole() error {
	var x pathArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	sites, err := tun(sitesEnd, x.Large)
	if err != nil {
		return err
	}
	client, err := tunIn(x.Client, clientsEnd, x.Large)
	if err != nil {
		return err
	}
	p := &track{pathArgs: x, sites: sites, client: client}
	out := json.NewEncoder(os.Stdout)
	go p.carry()
	out.Encode("there")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		p.mu.Lock()
		switch in.Text() {
		case "hold":
			p.holding = true
		case "mark":
			p.mark = len(p.held)
		case "flush":
			slices.Reverse(p.held[:p.mark])
			for _, b := range p.held {
				unix.Write(p.client, b)
			}
			p.holding, p.held = false, nil
		case "drop":
			p.holding, p.held = false, nil
		}
		n := p.seen
		p.mu.Unlock()
		out.Encode(n)
	}
	return in.Err()
}

// track keeps packets for a while.
type track struct {
	pathArgs
	// Both ends. What comes of one leaves by the other.
	sites, client int
	mu            sync.Mutex
	holding       bool
	held          [][]byte // in order
	seen          int      // packets with data from sites, held or not
	mark          int      // what is held up to here leaves in reverse
}

// hold keeps the data of sites while it is told to. Small packets pass.
func (p *track) hold(b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) < 200 || !fromSite(b) {
		return false
	}
	p.seen++
	if !p.holding {
		return false
	}
	p.held = append(p.held, append([]byte(nil), b...))
	return true
}

// carry passes packets on, each when it is due. It looks each pathTick rather than wait for
// each: waking up for one costs more than all the rest, and this machine has other work.
func (p *track) carry() {
	runtime.LockOSThread()
	to, from := lane{from: p.client, to: p.sites}, lane{from: p.sites, to: p.client}
	buf := make([]byte, 64<<10)
	for p.pass(&to, buf) && p.pass(&from, buf) {
		// Not time.Sleep: the runtime would look for other work, wake others, and set timers.
		rest := unix.NsecToTimespec(int64(pathTick))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&rest)), 0, 0)
	}
}

// lane is one direction.
type lane struct {
	from, to int
	queue    []parcel // in the order of their time
	free     [][]byte
}

// pass takes what has come and delivers what is due; false: the path ends.
func (p *track) pass(l *lane, buf []byte) bool {
	for {
		n, err := unix.Read(l.from, buf)
		if err == unix.EAGAIN {
			break
		}
		if err != nil && err != unix.EINTR {
			return false
		}
		if n <= 0 || rand.IntN(1000) < p.Loss || len(l.queue) == pathMost || p.hold(buf[:n]) {
			continue
		}
		var b []byte
		if last := len(l.free) - 1; last >= 0 {
			b, l.free = l.free[last], l.free[:last]
		}
		l.queue = append(l.queue, parcel{append(b[:0], buf[:n]...), time.Now().Add(p.Delay)})
	}
	sent, now := 0, time.Now()
	for ; sent < len(l.queue) && !l.queue[sent].due.After(now); sent++ {
		_, _ = unix.Write(l.to, l.queue[sent].packet) // what an end does not take is lost
		l.free = append(l.free, l.queue[sent].packet)
	}
	l.queue = slices.Delete(l.queue, 0, sent)
	return true
}

const (
	pathTick = time.Millisecond
	pathMost = 1 << 16 // packets under way
)

type parcel struct {
	packet []byte
	due    time.Time
}

// fromSite looks at the source port.
func fromSite(p []byte) bool {
	at := 20
	if p[0]>>4 == 6 {
		at = 40
	}
	return len(p) > at+1 && int(p[at])<<8|int(p[at+1]) == 8080
}

// through leads all packets between client and sites over a path.
func (w *world) through(x pathArgs) *process {
	w.t.Helper()
	x.Client = w.prefix + "c"
	p := w.start("r", "path", x)
	var word string
	p.next(&word)
	// A burst of a thousand sessions is the path's to carry: what it loses is what it is told to.
	w.in("r", "ip link set "+sitesEnd+" up txqueuelen 20000")
	for i, site := range []string{"a", "b"} {
		// A site knows its router before clients come, as it does where it speaks BGP with it:
		// the kernel drops what exceeds a few hundred packets for a neighbour that it looks for.
		w.in(site, fmt.Sprintf("bash -c echo>/dev/udp/2001:db8:%d::1/9", i+2))
	}
	w.in("c", "ip link set "+clientsEnd+" up txqueuelen 20000")
	for n, dev := range map[string]string{"r": sitesEnd, "c": clientsEnd} {
		w.in(n, "sysctl -qw net.ipv4.conf."+dev+".rp_filter=0 net.ipv4.conf.all.rp_filter=0")
	}
	// Sites speak to each other, and their hosts to their neighbours, directly.
	for family, client := range map[string]string{"-4": "198.51.100.2/32", "-6": "2001:db8:1::2/128"} {
		w.in("r", "ip "+family+" route add "+client+" dev "+sitesEnd)
		w.in("c", "ip "+family+" route replace default dev "+clientsEnd)
	}
	return p
}
