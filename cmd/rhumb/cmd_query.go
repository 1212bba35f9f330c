package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"
)

// question is what `query` was asked, in dig's words.
type question struct {
	name   string
	qtype  uint16
	server string
	subnet netip.Prefix
	tcp    bool
	dnssec bool
	short  bool
	edns   ednsWords
}

func (a *app) queryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "query NAME [TYPE] [@SERVER[:PORT]] [+subnet=PREFIX] [+tcp] [+tls] [+https[=PATH]] [+quic] [+dnssec] [+cookie] [+padding] [+keepalive] [+short]",
		Short:   "Ask a name server, as dig does; shows which site answered from which snapshot",
		Example: "  rhumb query www.cdn.demo.test A +subnet=203.0.113.64/28 @127.0.0.1:5300",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			q, err := parseQuestion(words)
			if err != nil {
				return withCode(exitUsage, err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), a.global.timeout)
			defer cancel()
			reply, took, err := q.ask(ctx)
			if err != nil {
				return withCode(exitUnreachable, fmt.Errorf("query %s: %s does not answer: %s", q.name, q.server, cause(err)))
			}
			return a.showReply(q, reply, took)
		},
	}
	return cmd
}

// labServer answers in the lab; without another word it is meant.
const labServer = "127.0.0.1:5300"

// parseQuestion reads words in any order.
func parseQuestion(words []string) (*question, error) {
	q := &question{qtype: dns.TypeA, server: labServer}
	asked := ""
	for _, w := range words {
		var err error
		switch {
		case strings.HasPrefix(w, "@"):
			asked = w
		case strings.HasPrefix(w, "+"):
			err = q.option(w[1:])
		default:
			if t, ok := dns.StringToType[strings.ToUpper(w)]; ok && q.name != "" {
				q.qtype = t
			} else if q.name == "" {
				q.name = dns.Fqdn(w)
			} else {
				err = fmt.Errorf("%q is neither a type, @SERVER nor an option", w)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if err := q.edns.fit(); err != nil {
		return nil, err
	}
	if asked != "" {
		var err error
		if q.server, err = serverAddress(asked[1:], q.edns.port()); err != nil {
			return nil, err
		}
	}
	if _, ok := dns.IsDomainName(q.name); q.name == "" || !ok {
		return nil, fmt.Errorf("%q is no domain name", q.name)
	}
	return q, nil
}

// serverAddress adds the port where none is named.
func serverAddress(s, port string) (string, error) {
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s, nil
	}
	s = strings.Trim(s, "[]")
	if s == "" {
		return "", errors.New("@ names no server")
	}
	return net.JoinHostPort(s, port), nil
}

func (q *question) option(o string) error {
	name, value, _ := strings.Cut(o, "=")
	switch name {
	case "tcp", "vc":
		q.tcp = true
	case "dnssec":
		q.dnssec = true
	case "short":
		q.short = true
	case "subnet":
		p, err := netip.ParsePrefix(value)
		if a, e := netip.ParseAddr(value); err != nil && e == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("+subnet=%s is neither an address nor a prefix", value)
		}
		q.subnet = p.Masked()
	default:
		return q.edns.word(name, value)
	}
	return nil
}

// message makes the query: always with NSID (RFC 5001), since the site is half
// of what one wants to know.
func (q *question) message() *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.qtype)
	m.RecursionDesired = false
	m.SetEdns0(1232, q.dnssec)
	opt := m.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	if q.subnet.IsValid() {
		family := uint16(1)
		if q.subnet.Addr().Is6() {
			family = 2
		}
		opt.Option = append(opt.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family,
			SourceNetmask: uint8(q.subnet.Bits()), Address: q.subnet.Addr().AsSlice()})
	}
	q.edns.add(opt)
	return m
}

// ask asks over UDP, and again over TCP when the answer is truncated.
func (q *question) ask(ctx context.Context) (*dns.Msg, time.Duration, error) {
	transport := "udp"
	switch {
	case q.edns.tls:
		transport = "tcp-tls"
	case q.tcp:
		transport = "tcp"
	}
	for again := true; ; again = false {
		if other := q.otherwise(); other != nil {
			reply, took, err := other(ctx)
			if err == nil && reply.Rcode == dns.RcodeBadCookie && again && q.edns.learn(reply) {
				continue
			}
			return reply, took, err
		}
		c := &dns.Client{Net: transport, TLSConfig: q.edns.tlsConfig()}
		if deadline, ok := ctx.Deadline(); ok {
			c.Timeout = time.Until(deadline)
		}
		reply, took, err := c.ExchangeContext(ctx, q.message(), q.server)
		if err == nil && reply.Truncated && transport == "udp" {
			transport = "tcp"
			continue
		}
		if err == nil && reply.Rcode == dns.RcodeBadCookie && again && q.edns.learn(reply) {
			continue // once, with the cookie that came along (RFC 7873 section 5.3)
		}
		return reply, took, err
	}
}

// otherwise is how to ask where that is not plain UDP, TCP or TLS, else nil.
func (q *question) otherwise() func(context.Context) (*dns.Msg, time.Duration, error) {
	switch {
	case q.edns.quic:
		return q.askQUIC
	case q.edns.https != "":
		return q.askHTTPS
	}
	return nil
}

func (a *app) showReply(q *question, m *dns.Msg, took time.Duration) error {
	var names []string
	for _, rr := range m.Answer {
		names = append(names, recordData(rr))
	}
	if q.short && a.global.output == "table" {
		_, err := io.WriteString(a.out, lines(names))
		return err
	}
	raw, err := json.Marshal(map[string]any{"server": q.server, "rcode": dns.RcodeToString[m.Rcode], "authoritative": m.Authoritative,
		"answer": texts(m.Answer), "authority": texts(m.Ns), "additional": texts(additional(m)), "nsid": nsid(m), "subnet": subnetText(m), "cookie": q.edns.cookieText(m), "errors": extendedErrors(m), "took_ms": float64(took.Microseconds()) / 1000})
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: names, text: func(w io.Writer, s style) { writeReply(w, s, q, m, took) }})
}

func recordData(rr dns.RR) string { return strings.TrimPrefix(rr.String(), rr.Header().String()) }

func texts(rrs []dns.RR) []string {
	out := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		out = append(out, rr.String())
	}
	return out
}

func additional(m *dns.Msg) []dns.RR {
	var out []dns.RR
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr)
		}
	}
	return out
}

func writeReply(w io.Writer, s style, q *question, m *dns.Msg, took time.Duration) {
	var flags []string
	for _, f := range []struct {
		on   bool
		name string
	}{{m.Response, "qr"}, {m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"}, {m.AuthenticatedData, "ad"}} {
		if f.on {
			flags = append(flags, f.name)
		}
	}
	fmt.Fprintf(w, ";; %s %s: %s, flags %s\n", q.name, dns.TypeToString[q.qtype], s.paint(bold, dns.RcodeToString[m.Rcode]), strings.Join(flags, " "))
	for _, part := range []struct {
		name string
		rrs  []dns.RR
	}{{"answer", m.Answer}, {"authority", m.Ns}, {"additional", additional(m)}} {
		if len(part.rrs) == 0 {
			continue
		}
		fmt.Fprintf(w, ";; %s\n", part.name)
		for _, rr := range part.rrs {
			fmt.Fprintln(w, rr)
		}
	}
	if id := nsid(m); id != "" {
		fmt.Fprintf(w, ";; answered by %s\n", id)
	}
	if sub := subnetText(m); sub != "" {
		fmt.Fprintf(w, ";; client subnet %s\n", sub)
	}
	if c := q.edns.cookieText(m); c != "" {
		fmt.Fprintf(w, ";; cookie %s\n", c)
	}
	for _, e := range extendedErrors(m) {
		fmt.Fprintf(w, ";; error %s\n", e)
	}
	fmt.Fprintf(w, ";; %d bytes from %s in %.1f ms\n", m.Len(), q.server, float64(took.Microseconds())/1000)
}

// nsid returns the site and snapshot which the server names; what is not
// printable is shown in hexadecimal.
func nsid(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if id, ok := o.(*dns.EDNS0_NSID); ok {
				b, err := hex.DecodeString(id.Nsid)
				if err != nil || strings.ContainsFunc(string(b), func(r rune) bool { return r < ' ' || r > '~' }) {
					return id.Nsid
				}
				return string(b)
			}
		}
	}
	return ""
}

// subnetText tells for whom the answer holds (RFC 7871, 7.2.1).
func subnetText(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if sub, ok := o.(*dns.EDNS0_SUBNET); ok {
				return fmt.Sprintf("%s/%d, answer holds for /%d", sub.Address, sub.SourceNetmask, sub.SourceScope)
			}
		}
	}
	return ""
}
