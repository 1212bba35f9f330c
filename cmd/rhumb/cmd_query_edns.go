package main

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// ednsWords are the words of `query` about EDNS options and the transport below.
type ednsWords struct {
	tls, quic, padding, keepalive bool
	// https is the path where queries are asked over HTTPS; "": they are not.
	https string
	// cookie is the client's part, with a server's behind it where one is known; "": none.
	cookie string
}

// port is where the server is asked if no other one is named.
func (e *ednsWords) port() string {
	if e.tls || e.quic {
		return "853" // RFC 7858 section 3.1, RFC 9250 section 4.1.1
	}
	if e.https != "" {
		return "443"
	}
	return "53"
}

// word reads one.
func (e *ednsWords) word(name, value string) error {
	switch name {
	case "tls":
		e.tls = true
	case "quic":
		e.quic = true
	case "https":
		if e.https = cmp.Or(value, dohPath); e.https[0] != '/' {
			return fmt.Errorf("+https=%s: want a path, which begins with a slash", value)
		}
	case "padding":
		e.padding = true
	case "keepalive":
		e.keepalive = true
	case "cookie":
		if value == "" {
			var c [8]byte
			rand.Read(c[:]) // never fails (crypto/rand)
			value = hex.EncodeToString(c[:])
		}
		if b, err := hex.DecodeString(value); err != nil || len(b) < 8 || len(b) > 40 {
			return fmt.Errorf("+cookie=%s: want 8 to 40 octets in hexadecimal (RFC 7873)", value)
		}
		e.cookie = value
	default:
		return fmt.Errorf("no option +%s; there are +subnet=PREFIX, +tcp, +tls, +https[=PATH], +quic, +dnssec, +cookie[=HEX], +padding, +keepalive, +short", name)
	}
	return nil
}

// fit tells which words do not go together.
func (e *ednsWords) fit() error {
	switch {
	case e.quic && e.tls:
		return errors.New("+quic and +tls are two transports")
	case e.https != "" && (e.quic || e.tls):
		return errors.New("+https is a transport of its own, beside +tls and +quic")
	case e.https != "" && e.keepalive:
		return errors.New("+keepalive is for TCP alone (RFC 7828): HTTP has its own means")
	case e.quic && e.keepalive:
		return errors.New("+keepalive is for TCP: over QUIC it ends the connection (RFC 9250, 5.5.2)")
	}
	return nil
}

// add puts the options into a query.
func (e *ednsWords) add(opt *dns.OPT) {
	if e.cookie != "" {
		opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: e.cookie})
	}
	if e.padding {
		opt.Option = append(opt.Option, &dns.EDNS0_PADDING{})
	}
	if e.keepalive {
		opt.Option = append(opt.Option, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})
	}
}

// tlsConfig trusts whoever answers: the tool shows what a server says, and a name
// server's certificate need not name the address that it was asked at (RFC 7858
// section 4.1, opportunistic).
func (e *ednsWords) tlsConfig() *tls.Config {
	if !e.tls {
		return nil
	}
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{"dot"}}
}

// learn takes the server's cookie from a reply, and tells whether there is one.
func (e *ednsWords) learn(m *dns.Msg) bool {
	c := replyCookie(m)
	if e.cookie == "" || len(c) <= 16 || !strings.HasPrefix(c, e.cookie[:16]) {
		return false
	}
	e.cookie = c
	return true
}

// cookieText shows the cookie of a reply, and whether it is one for us.
func (e *ednsWords) cookieText(m *dns.Msg) string {
	c := replyCookie(m)
	switch {
	case c == "":
		return ""
	case len(e.cookie) < 16 || !strings.HasPrefix(c, e.cookie[:16]):
		return c + " (not ours)"
	case len(c) == 16:
		return c + " (echoed: the server knows no cookies)"
	}
	return c
}

func replyCookie(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if c, ok := o.(*dns.EDNS0_COOKIE); ok {
				return c.Cookie
			}
		}
	}
	return ""
}

// extendedErrors are those of a reply in words (RFC 8914).
func extendedErrors(m *dns.Msg) []string {
	out := []string{}
	opt := m.IsEdns0()
	if opt == nil {
		return out
	}
	for _, o := range opt.Option {
		e, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		text := fmt.Sprintf("%d %s", e.InfoCode, dns.ExtendedErrorCodeToString[e.InfoCode])
		if e.ExtraText != "" {
			text += ": " + e.ExtraText
		}
		out = append(out, text)
	}
	return out
}
