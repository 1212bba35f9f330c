//go:build e2e

package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"rhumb/internal/netlab"
)

// question is one query to one server.
type question struct {
	Server netip.AddrPort `json:"server"`
	Name   string         `json:"name"`
	Type   string         `json:"type"`             // A when empty
	Client netip.Prefix   `json:"client,omitzero"`  // the client subnet option; none when zero
	TCP    bool           `json:"tcp,omitempty"`    //
	NSID   bool           `json:"nsid,omitempty"`   // ask who answers (RFC 5001)
	RD     bool           `json:"rd,omitempty"`     // ask a resolver
	From   netip.Addr     `json:"from,omitzero"`    // the asker's address, in a crowd alone
	Within time.Duration  `json:"within,omitempty"` // 1 s when zero
	After  time.Duration  `json:"after,omitempty"`  // of a poll: begin so much later
	// Again is when to ask once more, as a stub resolver does; never when zero.
	Again time.Duration `json:"again,omitempty"`
}

// answer is what came back, and when.
type answer struct {
	Q    int           `json:"q"` // number of the question
	At   time.Time     `json:"at"`
	Took time.Duration `json:"took"`
	Lost int           `json:"lost,omitempty"` // attempts without an answer
	Wire []byte        `json:"wire,omitempty"`
	Err  string        `json:"err,omitempty"`
}

func (q question) message() *dns.Msg {
	m := new(dns.Msg)
	t, ok := dns.StringToType[q.Type]
	if !ok {
		t = dns.TypeA
	}
	m.SetQuestion(dns.Fqdn(q.Name), t)
	m.RecursionDesired = q.RD
	m.SetEdns0(1232, false)
	opt := m.IsEdns0()
	if q.Client.IsValid() {
		family := uint16(1)
		if q.Client.Addr().Is6() {
			family = 2
		}
		opt.Option = append(opt.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family,
			SourceNetmask: uint8(q.Client.Bits()), Address: net.IP(q.Client.Masked().Addr().AsSlice())})
	}
	if q.NSID {
		opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	}
	return m
}

// patient is the question as a stub resolver puts it, unless it has a patience of its
// own: a datagram may get lost on its way, and a busy machine is no silent server.
func (q question) patient() question {
	if q.Within == 0 {
		q.Within, q.Again = 12*time.Second, 3*time.Second
	}
	return q
}

// ask sends the question from where it is called and waits for the answer.
func (q question) ask(ctx context.Context) answer {
	began, limit := time.Now(), q.Within
	if limit == 0 {
		limit = time.Second
	}
	patience := limit
	if q.Again > 0 {
		patience = q.Again
	}
	var a answer
	for {
		resp, err := q.attempt(ctx, patience)
		a.At, a.Took = time.Now(), time.Since(began)
		if err == nil {
			a.Wire, err = resp.Pack()
		}
		a.Err = ""
		if err == nil {
			return a
		}
		a.Err = err.Error()
		if a.Lost++; a.Took+patience > limit || ctx.Err() != nil {
			return a
		}
		select { // who is refused at once asks again, but not as fast as it can
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// attempt sends the question once.
func (q question) attempt(ctx context.Context, patience time.Duration) (*dns.Msg, error) {
	c := dns.Client{Net: "udp", Timeout: patience, UDPSize: 4096}
	if q.TCP {
		c.Net = "tcp"
	}
	resp, _, err := c.ExchangeContext(ctx, q.message(), q.Server.String())
	return resp, err
}

// msg is the parsed answer.
func (a answer) msg() (*dns.Msg, error) {
	if a.Err != "" {
		return nil, fmt.Errorf("no answer: %s", a.Err)
	}
	m := new(dns.Msg)
	return m, m.Unpack(a.Wire)
}

// text is the answer in short: addresses in order, or the rcode, or the error.
func (a answer) text() string {
	m, err := a.msg()
	switch {
	case err != nil:
		return "no answer"
	case m.Rcode != dns.RcodeSuccess:
		return dns.RcodeToString[m.Rcode]
	}
	return joinAddrs(addrsOf(m))
}

func joinAddrs(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

// addrsOf are the addresses in the answer section, sorted.
func addrsOf(m *dns.Msg) []netip.Addr {
	var out []netip.Addr
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A.To4())
			out = append(out, a)
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA.To16())
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// scopeOf is the subnet for which the answer holds; invalid without the option.
func scopeOf(m *dns.Msg) netip.Prefix {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if s, ok := o.(*dns.EDNS0_SUBNET); ok {
				a, _ := netip.AddrFromSlice(s.Address)
				if s.Family == 1 {
					a = a.Unmap()
				}
				return netip.PrefixFrom(a, int(s.SourceScope))
			}
		}
	}
	return netip.Prefix{}
}

// nsidOf is the name of the answering server.
func nsidOf(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if n, ok := o.(*dns.EDNS0_NSID); ok {
				b, _ := hex.DecodeString(n.Nsid)
				return string(b)
			}
		}
	}
	return ""
}

// ask puts a question to the lab's listener on the host.
func (l *lab) ask(q question) (*dns.Msg, error) {
	q.Server = l.dns
	return q.patient().ask(context.Background()).msg()
}

// askIn puts questions, one after the other, inside a node.
func (l *lab) askIn(node string, qs ...question) []answer {
	l.t.Helper()
	out := make([]answer, 0, len(qs))
	err := l.agent(context.Background(), node, order{Ask: qs}, func(e event) {
		if e.Answer != nil {
			out = append(out, *e.Answer)
		}
	})
	if err != nil || len(out) != len(qs) {
		l.t.Fatalf("ask in %s: %d answers of %d: %v", node, len(out), len(qs), err)
	}
	return out
}

// blocks are the clients' networks by region.
func blocks() map[string]netip.Prefix {
	out := map[string]netip.Prefix{}
	for i, region := range []string{netlab.Europe, netlab.America, netlab.Asia} {
		out[region], _ = netlab.LabBlock(i)
	}
	return out
}

// Regions and sites of the lab, in order.
func regions() []string { return []string{netlab.Europe, netlab.America, netlab.Asia} }
func sites() []string   { return []string{"ams1", "nyc1", "tyo1"} }

// siteOf tells whose all of some addresses are; empty when nobody's, "mixed" when
// several sites'.
func (l *lab) siteOf(addrs []netip.Addr) string {
	l.owners()
	found := ""
	for _, a := range addrs {
		switch site := l.owner[a]; {
		case found == "":
			found = site
		case found != site:
			return "mixed"
		}
	}
	return found
}

// owners learns once which site has which unicast address.
func (l *lab) owners() {
	l.t.Helper()
	l.ownerOnce.Do(func() {
		l.owner, l.first = map[netip.Addr]string{}, map[string]netip.Addr{}
		for _, n := range l.nodes() {
			if n.Role != netlab.Site {
				continue
			}
			l.first[n.Name] = n.Addresses[0]
			for _, a := range n.Addresses {
				l.owner[a] = n.Name
			}
		}
	})
}

// nameServer is the low-level listener of a site.
func (l *lab) nameServer(site string) netip.AddrPort {
	l.owners()
	return netip.AddrPortFrom(l.first[site], 53)
}

func parseAddr(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

func parseAddrPort(text string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(text)
	return a
}
