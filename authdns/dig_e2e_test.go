//go:build e2e

package authdns

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dig asks as an operator would, and returns what it prints.
func dig(t *testing.T, s *Server, listener int, words ...string) string {
	t.Helper()
	addr := s.Addrs()[listener]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	args := append([]string{"@" + addr.Addr().String(), "-p", strconv.Itoa(int(addr.Port())), "+tries=1", "+timeout=10"}, words...)
	out, err := exec.CommandContext(ctx, "dig", args...).CombinedOutput()
	if err != nil {
		t.Errorf("dig %s: %v (Debian package bind9-dnsutils)", strings.Join(args, " "), err)
	}
	return string(out)
}

// TestDig: what another implementation makes of our cookies, TLS, padding and
// errors: it knows a good cookie from one that is only echoed.
func TestDig(t *testing.T) {
	s, _ := startTLS(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0"), loopback(top, "[::1]:0")}}, "127.0.0.1:0")
	for _, c := range []struct {
		name     string
		listener int
		words    string
		want     []string
	}{
		{"cookie", 0, "www.demo.test +cookie", []string{"status: NOERROR", "(good)", "192.0.2.10"}},
		{"cookie over IPv6", 1, "www.demo.test +cookie", []string{"status: NOERROR", "(good)"}},
		{"cookie over TCP", 0, "www.demo.test +tcp +cookie", []string{"status: NOERROR", "(good)", "(TCP)"}},
		{"cookie alone", 0, "+header-only +cookie", []string{"status: NOERROR", "QUERY: 0", "(good)"}},
		{"no question", 0, "+header-only +nocookie", []string{"status: FORMERR"}},
		{"TLS", 2, "www.demo.test +tls", []string{"status: NOERROR", "192.0.2.10", "(TLS)"}},
		{"padding", 2, "www.demo.test +tls +padding=128", []string{"status: NOERROR", "PAD", "MSG SIZE  rcvd: 468"}},
		{"one connection for two", 0, "+keepopen +tcp www.demo.test alias.demo.test", []string{"www.demo.test.\t\t3600\tIN\tA", "CNAME"}},
		{"version 1", 0, "www.demo.test +edns=1 +noednsneg +nocookie", []string{"status: BADVERS", "version: 0", "ANSWER: 0"}},
		{"unknown option", 0, "www.demo.test +ednsopt=65001:0102", []string{"status: NOERROR", "ANSWER: 1"}},
		{"unknown flags", 0, "www.demo.test +ednsflags=0x7fff", []string{"status: NOERROR", "flags:; udp: 1232"}},
		{"opcode", 0, "www.demo.test +opcode=15", []string{"status: NOTIMP", "opcode: RESERVED15"}},
		{"extended error", 0, "www.other.test", []string{"status: REFUSED", "EDE: 20 (Not Authoritative)"}},
		{"truncated, then TCP", 0, "many.demo.test", []string{"Truncated, retrying in TCP mode", "ANSWER: 90"}},
		{"keepalive", 0, "www.demo.test +tcp +keepalive", []string{"TCP KEEPALIVE: 10.0 secs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := dig(t, s, c.listener, strings.Fields(c.words)...)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in what dig %s says:\n%s", want, c.words, got)
				}
			}
		})
	}
}
