package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/miekg/dns"
)

// dohPath is where queries are answered unless somebody says otherwise.
const dohPath = "/dns-query"

// dohTransport speaks HTTP/2, and trusts whoever answers, as over TLS.
func dohTransport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
}

// askHTTPS asks over HTTPS by POST (RFC 8484), and trusts whoever answers.
func (q *question) askHTTPS(ctx context.Context) (*dns.Msg, time.Duration, error) {
	m := q.message()
	m.Id = 0 // section 4.1
	query, err := m.Pack()
	if err != nil {
		return nil, 0, err
	}
	t := dohTransport()
	defer t.CloseIdleConnections()
	start := time.Now()
	b, err := overHTTP(ctx, t, "https://"+q.server+q.edns.https, query)
	took := time.Since(start)
	if err != nil {
		return nil, 0, err
	}
	reply := new(dns.Msg)
	return reply, took, reply.Unpack(b)
}

// overHTTP posts a query and returns the message that answers it.
func overHTTP(ctx context.Context, by http.RoundTripper, url string, query []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", dohMedia)
	r.Header.Set("Accept", dohMedia)
	resp, err := by.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, dns.MaxMsgSize+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %s", resp.Status)
	case resp.Header.Get("Content-Type") != dohMedia:
		return nil, fmt.Errorf("content of type %q, which is no DNS message", resp.Header.Get("Content-Type"))
	}
	return b, nil
}

// dohMedia is the media type of a DNS message (RFC 8484 section 6).
const dohMedia = "application/dns-message"
