package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"rhumb/internal/netlab"
)

// asker asks as a client does, and names the site that answers.
type asker func(ctx context.Context, h *netlab.Host, round int) (site string, err error)

// askAnycast asks the top level at its anycast address who it is.
func askAnycast(ctx context.Context, h *netlab.Host, _ int) (string, error) {
	q := new(dns.Msg)
	q.SetQuestion("demo.test.", dns.TypeSOA)
	q.SetEdns0(1232, false)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	m, err := netlab.HostExchanger{Host: h}.Exchange(ctx, netip.MustParseAddrPort("192.0.2.1:53"), q, false)
	if err != nil {
		return "", err
	}
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
		return "", fmt.Errorf("%s", dns.RcodeToString[m.Rcode])
	}
	return nsidSite(m), nil
}

// askNear asks the name server of a client's own site at an address of its own.
func askNear(ctx context.Context, h *netlab.Host, server netip.AddrPort) error {
	q := new(dns.Msg)
	q.SetQuestion("cdn.demo.test.", dns.TypeSOA)
	_, err := netlab.HostExchanger{Host: h}.Exchange(ctx, server, q, false)
	return err
}

// nsidSite is the site in the name server's identity, "SITE SNAPSHOT" in hex.
func nsidSite(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if id, ok := o.(*dns.EDNS0_NSID); ok {
				name, err := hex.DecodeString(id.Nsid)
				if err != nil {
					continue
				}
				site, _, _ := strings.Cut(string(name), " ")
				return site
			}
		}
	}
	return "somebody"
}

// askServers asks servers in turn for a page, and reads which site it comes from.
func askServers(servers []netip.AddrPort) asker {
	return func(ctx context.Context, h *netlab.Host, round int) (string, error) {
		conn, err := h.Dial(ctx, "tcp", servers[round%len(servers)].String())
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if deadline, ok := ctx.Deadline(); ok {
			if err := conn.SetDeadline(deadline); err != nil {
				return "", err
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://customer.test/healthz", nil)
		if err != nil {
			return "", err
		}
		req.Close = true
		if err := req.Write(conn); err != nil {
			return "", err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return "", errors.New(resp.Status)
		}
		return or(resp.Header.Get("X-Served-By"), "somebody"), nil
	}
}
