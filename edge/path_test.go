//go:build e2e

package edge

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pathArgs say what a path between client and sites does to packets.
type pathArgs struct {
	Delay time.Duration // each way
	Loss  int           // in a thousand, each way
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
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq("path0")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	p := &track{pathArgs: x, tun: os.NewFile(uintptr(fd), "path0")}
	out := json.NewEncoder(os.Stdout)
	go p.read()
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
				p.tun.Write(b)
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
	tun     *os.File
	mu      sync.Mutex
	holding bool
	held    [][]byte // in order
	seen    int      // packets with data from sites, held or not
	mark    int      // what is held up to here leaves in reverse
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

func (p *track) read() {
	queue := make(chan parcel, 1<<16)
	go p.deliver(queue)
	buf := make([]byte, 64<<10)
	for {
		n, err := p.tun.Read(buf)
		if err != nil {
			return
		}
		if rand.IntN(1000) < p.Loss || p.hold(buf[:n]) {
			continue
		}
		select {
		case queue <- parcel{append([]byte(nil), buf[:n]...), time.Now().Add(p.Delay)}:
		default: // a full queue
		}
	}
}

type parcel struct {
	packet []byte
	due    time.Time
}

func (p *track) deliver(from <-chan parcel) {
	for x := range from {
		time.Sleep(time.Until(x.due))
		if _, err := p.tun.Write(x.packet); err != nil {
			return
		}
	}
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
	p := w.start("r", "path", x)
	var word string
	p.next(&word)
	// A burst of a thousand sessions is the path's to carry: what it loses is what it is told to.
	w.in("r", "ip link set path0 up txqueuelen 20000")
	for i, site := range []string{"a", "b"} {
		// A site knows its router before clients come, as it does where it speaks BGP with it:
		// the kernel drops what exceeds a few hundred packets for a neighbour that it looks for.
		w.in(site, fmt.Sprintf("bash -c echo>/dev/udp/2001:db8:%d::1/9", i+2))
	}
	w.in("r", "sysctl -qw net.ipv4.conf.path0.rp_filter=0 net.ipv4.conf.all.rp_filter=0")
	for _, family := range []string{"-4", "-6"} {
		w.in("r", "ip "+family+" route add default dev path0 table 100")
		for _, dev := range []string{"c0", "a0", "b0"} {
			w.in("r", "ip "+family+" rule add iif "+dev+" lookup 100")
		}
		// Sites speak to each other, and this host to its neighbours, directly.
		for i := 1; i <= 2; i++ {
			to := map[string][2]string{"-4": {"198.51.100.6/32", "198.51.100.10/32"}, "-6": {"2001:db8:2::2/128", "2001:db8:3::2/128"}}[family]
			w.in("r", "ip "+family+" rule add to "+to[i-1]+" lookup main pref 10")
		}
		w.in("r", "ip "+family+" rule add to "+map[string]string{"-4": "198.51.100.1/32", "-6": "2001:db8:1::1/128"}[family]+" lookup local pref 9")
	}
	return p
}
