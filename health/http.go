package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// bodyLimit is how much of a body is looked at.
const bodyLimit = 5120

// ProbeHTTP asks for the check's path over HTTP/1.1, with Host (and SNI) set to
// the service's name. Redirects are answers, not followed. The chain of an HTTPS
// target must verify for the name, unless the check says skip.
func ProbeHTTP(ctx context.Context, t Target) Result {
	h := t.Check.HTTP
	host := h.Host
	if host == "" {
		host = t.Host
	}
	var connected time.Duration
	start := time.Now()
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		TLSClientConfig: &tls.Config{ServerName: host, InsecureSkipVerify: h.Verify == "skip"},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dial(ctx, t)
			connected = time.Since(start)
			return c, err
		}}
	defer tr.CloseIdleConnections()
	req, err := httpRequest(ctx, t, host)
	if err != nil {
		return failed("request", err.Error())
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		kind, cause := httpError(err)
		return failed(kind, "GET "+req.URL.String()+": "+cause)
	}
	defer resp.Body.Close()
	r := judgeResponse(h.Expect, h.Body, resp)
	r.Connect = connected
	return r
}

// httpRequest asks the address, in the name of the service.
func httpRequest(ctx context.Context, t Target, host string) (*http.Request, error) {
	scheme := "http"
	if t.Check.HTTP.TLS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+t.Address.String()+t.Check.HTTP.Path, nil)
	if err != nil {
		return nil, err
	}
	if host != "" {
		req.Host = host
	}
	req.Header.Set("User-Agent", "rhumb-health")
	return req, nil
}

// judgeResponse reads no more of a body than is looked at; a body that breaks off
// fails, whatever the status said before.
func judgeResponse(expect []int, body string, resp *http.Response) Result {
	ok := resp.StatusCode >= 200 && resp.StatusCode < 400
	if len(expect) > 0 {
		ok = slices.Contains(expect, resp.StatusCode)
	}
	if !ok {
		return failed("status", fmt.Sprintf("status %d", resp.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, bodyLimit))
	r := Result{Bytes: len(data)}
	switch {
	case err != nil:
		r.Kind, r.Cause = dialKind(err), fmt.Sprintf("status %d, body broke off after %d bytes: %s", resp.StatusCode, len(data), reason(err))
	case body != "" && !bytes.Contains(data, []byte(body)):
		r.Kind, r.Cause = "body", fmt.Sprintf("status %d, but %q is not in the first %d bytes", resp.StatusCode, body, len(data))
	default:
		r.OK, r.Kind = true, "ok"
	}
	return r
}

// httpError tells an expired certificate, a wrong name and an unknown authority apart.
func httpError(err error) (kind, cause string) {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired", "certificate expired or not yet valid"
	case errors.As(err, &name):
		return "name", "certificate is for another name: " + name.Error()
	case errors.As(err, &unknown):
		return "authority", "certificate signed by an unknown authority"
	}
	return dialKind(err), reason(err)
}
