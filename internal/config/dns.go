package config

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// DNS is the name server's part of a node file; all of it may be left out.
type DNS struct {
	// Cookies is a file with the secrets of server cookies, the same on all nodes
	// that answer on one address (RFC 9018); none: one of this process alone.
	Cookies string `yaml:"cookies"`
	// HideIdentity switches NSID, id.server and version.server off.
	HideIdentity bool     `yaml:"hide_identity"`
	Limit        DNSLimit `yaml:"limit"`
	TCP          DNSTCP   `yaml:"tcp"`
	// Proxies are networks whose TCP connections begin with a PROXY v2 header.
	Proxies []netip.Prefix `yaml:"proxies"`
	// Resolvers are recursive servers, asked for targets of aliases outside our zones.
	Resolvers []netip.AddrPort `yaml:"resolvers"`
	// Overload is what is done when more is asked for than can be answered: act (the
	// default, and observe where the node's mode is that), observe or off.
	Overload string `yaml:"overload"`
	Dnstap   Dnstap `yaml:"dnstap"`
}

// Dnstap says whom what is asked and answered is told: a collector that listens on a
// unix socket, or over TCP; neither: nobody.
type Dnstap struct {
	Socket string `yaml:"socket"`
	TCP    string `yaml:"tcp"`    // HOST:PORT
	Sample int    `yaml:"sample"` // of so many queries one is told; 1 by default
}

// maxSample is one query in some minutes of a busy server.
const maxSample = 100_000_000

func (d *Dnstap) check(src *source, at []string) {
	switch {
	case d.Socket != "" && d.TCP != "":
		src.fail(at, "socket and tcp exclude each other")
	case d.Sample < 0 || d.Sample > maxSample:
		src.fail(append(at, "sample"), "%d: want 1 to tell all, N to tell one of N, up to %d", d.Sample, maxSample)
	case d.Sample > 0 && d.Socket == "" && d.TCP == "":
		src.fail(append(at, "sample"), "is for a collector: socket or tcp")
	case len(d.Socket) > maxSocketPath:
		src.fail(append(at, "socket"), "%d octets: the kernel takes %d", len(d.Socket), maxSocketPath)
	}
	if host, port, err := net.SplitHostPort(d.TCP); d.TCP != "" && (err != nil || host == "" || port == "") {
		src.fail(append(at, "tcp"), "%q is not HOST:PORT", d.TCP)
	}
}

// maxSocketPath is of unix(7).
const maxSocketPath = 107

// What Overload may be.
const (
	OverloadAct     = "act"
	OverloadObserve = "observe"
	OverloadOff     = "off"
)

// DNSLimit bounds the replies that a client's network gets over UDP.
type DNSLimit struct {
	Rate   int            `yaml:"rate"` // of one kind, a second; 0 is no limit
	Slip   int            `yaml:"slip"` // of so many beyond it one is truncated, the others are dropped
	Exempt []netip.Prefix `yaml:"exempt"`
}

// DNSTCP bounds connections; 0 is the default of each.
type DNSTCP struct {
	Idle        placement.Duration `yaml:"idle"`
	Connections int                `yaml:"connections"`
	PerClient   int                `yaml:"per_client"`
}

// DoT are the listeners of DNS over TLS (RFC 7858) and their certificate.
type DoT struct {
	Top  []netip.AddrPort `yaml:"top"`
	Low  []netip.AddrPort `yaml:"low"`
	Cert string           `yaml:"cert"`
	Key  string           `yaml:"key"`
}

// DoH are the listeners of DNS over HTTPS (RFC 8484), their certificate, and the path
// at which they answer.
type DoH struct {
	Top  []netip.AddrPort `yaml:"top"`
	Low  []netip.AddrPort `yaml:"low"`
	Cert string           `yaml:"cert"`
	Key  string           `yaml:"key"`
	Path string           `yaml:"path"` // /dns-query by default
}

// DoQ are the listeners of DNS over QUIC (RFC 9250) and their certificate.
type DoQ struct {
	Top  []netip.AddrPort `yaml:"top"`
	Low  []netip.AddrPort `yaml:"low"`
	Cert string           `yaml:"cert"`
	Key  string           `yaml:"key"`
}

// The bounds of what may be set: a tick of the limiter's clock, the longest time
// that a keepalive option holds (RFC 7828 section 3.1).
const (
	maxRate = 100_000
	maxSlip = 10
	maxIdle = 65535 * 100 * time.Millisecond
)

// resolve makes the paths of the name server's files relative to a directory.
func (n *Node) resolveDNS(dir string) {
	for _, file := range []*string{&n.DNS.Cookies, &n.Listen.DoT.Cert, &n.Listen.DoT.Key, &n.Listen.DoH.Cert, &n.Listen.DoH.Key, &n.Listen.DoQ.Cert, &n.Listen.DoQ.Key, &n.DNS.Dnstap.Socket} {
		if *file != "" {
			*file = resolve(dir, *file)
		}
	}
}

// checkDNS checks the name server's part.
func (n *Node) checkDNS(src *source) {
	d := &n.DNS
	at := func(keys ...string) []string { return append([]string{"dns"}, keys...) }
	if d.Limit.Rate < 0 || d.Limit.Rate > maxRate {
		src.fail(at("limit", "rate"), "%d: want 1 to %d replies a second, or 0 for no limit", d.Limit.Rate, maxRate)
	}
	if d.Limit.Slip < 0 || d.Limit.Slip > maxSlip {
		src.fail(at("limit", "slip"), "%d: want 1 (every reply beyond the rate is truncated) to %d", d.Limit.Slip, maxSlip)
	}
	if d.Limit.Rate == 0 && (d.Limit.Slip > 0 || len(d.Limit.Exempt) > 0) {
		src.fail(at("limit"), "slip and exempt say what a rate does, which is missing")
	}
	checkNetworks(src, at("limit", "exempt"), d.Limit.Exempt)
	checkNetworks(src, at("proxies"), d.Proxies)
	for i, r := range d.Resolvers {
		if !usable(r) || slices.Contains(d.Resolvers[:i], r) {
			src.fail(at("resolvers"), "%s stands twice, or is no address of a server", r)
		}
	}
	if o := d.Overload; o != "" && o != OverloadAct && o != OverloadObserve && o != OverloadOff {
		src.fail(at("overload"), "%q: want act, observe or off", o)
	}
	if i := d.TCP.Idle.D(); i != 0 && (i < time.Second || i > maxIdle) {
		src.fail(at("tcp", "idle"), "%s: want 1s to %s (RFC 7828, 3.1)", d.TCP.Idle, maxIdle)
	}
	if d.TCP.Connections < 0 {
		src.fail(at("tcp", "connections"), "%d: want a number of connections, or 0 for the default", d.TCP.Connections)
	}
	if d.TCP.PerClient < 0 || d.TCP.Connections > 0 && d.TCP.PerClient > d.TCP.Connections {
		src.fail(at("tcp", "per_client"), "%d: want no more than tcp.connections, or 0 for the default", d.TCP.PerClient)
	}
	d.Dnstap.check(src, at("dnstap"))
	t, h := &n.Listen.DoT, &n.Listen.DoH
	seen := n.checkTLS(src, "dot", "DNS over TLS has port 853 (RFC 7858, 3.1)", t, nil)
	n.checkTLS(src, "doh", "DNS over HTTPS has port 443", &DoT{h.Top, h.Low, h.Cert, h.Key}, seen)
	// Of UDP: an address of the others is no hindrance.
	n.checkTLS(src, "doq", "DNS over QUIC has UDP port 853", (*DoT)(&n.Listen.DoQ), nil)
	n.checkDoQ(src)
	if h.Path != "" && (h.Path[0] != '/' || strings.ContainsAny(h.Path, "?#{} \t")) {
		src.fail([]string{"listen", "doh", "path"}, "%q: want a path, as /dns-query", h.Path)
	}
}

// checkDoQ refuses the port that is for DNS in clear (RFC 9250 section 4.1.1).
func (n *Node) checkDoQ(src *source) {
	for _, set := range []struct {
		key  string
		list []netip.AddrPort
	}{{"top", n.Listen.DoQ.Top}, {"low", n.Listen.DoQ.Low}} {
		if i := slices.IndexFunc(set.list, func(a netip.AddrPort) bool { return a.Port() == 53 }); i >= 0 {
			src.fail([]string{"listen", "doq", set.key}, "%s: DNS over QUIC must not use port 53 (RFC 9250, 4.1.1)", set.list[i])
		}
	}
}

// checkNetworks refuses a network with host bits, which means less or more than
// its writer thought, and one that is everybody.
func checkNetworks(src *source, at []string, list []netip.Prefix) {
	for _, p := range list {
		switch {
		case !p.IsValid() || p.Masked() != p:
			src.fail(at, "%s is no network: want %s", p, p.Masked())
		case p.Bits() == 0:
			src.fail(at, "%s is everybody", p)
		}
	}
}

// checkTLS checks the listeners of an encrypted transport. Their level is that of their
// address, so each stands beside one in clear. It returns those that were taken before
// and its own.
func (n *Node) checkTLS(src *source, name, port string, d *DoT, seen []netip.AddrPort) []netip.AddrPort {
	at := func(key string) []string { return []string{"listen", name, key} }
	before := len(seen)
	for _, set := range []struct {
		key         string
		list, clear []netip.AddrPort
	}{{"top", d.Top, n.Listen.Top}, {"low", d.Low, n.Listen.Low}} {
		for _, a := range set.list {
			same := func(c netip.AddrPort) bool { return c.Addr() == a.Addr() }
			switch {
			case !a.IsValid() || a.Port() == 0 || slices.Contains(seen, a):
				src.fail(at(set.key), "%s stands twice, or is not ADDRESS:PORT", a)
			case !slices.ContainsFunc(set.clear, same):
				src.fail(at(set.key), "%s is no address of listen.%s: the level belongs to the address", a, set.key)
			case slices.Contains(set.clear, a):
				src.fail(at(set.key), "%s is served in clear: %s", a, port)
			}
			seen = append(seen, a)
		}
	}
	switch {
	case (d.Cert == "") != (d.Key == ""):
		src.fail([]string{"listen", name}, "want cert and key, both")
	case len(seen) > before && d.Cert == "":
		src.fail([]string{"listen", name}, "an address for TLS needs cert and key")
	case len(seen) == before && d.Cert != "":
		src.fail([]string{"listen", name}, "cert and key are for top or low addresses, which are missing")
	}
	return seen
}
