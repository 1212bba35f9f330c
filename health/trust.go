package health

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"rhumb/placement"
)

// verifier judges a server's certificate as a check's trust wants it.
type verifier struct {
	trust *placement.Trust
	host  string
}

func newVerifier(t *placement.Trust, host string) verifier { return verifier{t, host} }

// errPin is the error of a server whose key is none of the pinned ones.
var errPin = errors.New("the server's key is none of the pinned ones")

// config returns the client's side of TLS.
func (v verifier) config() *tls.Config {
	c := &tls.Config{ServerName: v.host, RootCAs: roots(v.trust.CA)}
	switch v.trust.Verify {
	case "skip":
		c.InsecureSkipVerify = true
	case "pin":
		c.InsecureSkipVerify = true // by VerifyConnection instead
		c.VerifyConnection = v.pinned
	}
	return c
}

// pinned looks for the leaf's public key among the pins (RFC 7469, 2.4).
func (v verifier) pinned(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errPin
	}
	sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if !slices.Contains(v.trust.Pins, base64.StdEncoding.EncodeToString(sum[:])) {
		return errPin
	}
	return nil
}

// roots are the authorities of a check; nil means the system's. A text that holds
// no certificate trusts nobody.
func roots(pem string) *x509.CertPool {
	if pem == "" {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(pem))
	return pool
}

// tlsError tells an expired certificate, a wrong name and an unknown authority
// apart: three different people have to be called.
func tlsError(err error) (kind, cause string) {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired", "certificate expired or not yet valid" + validity(invalid.Cert)
	case errors.As(err, &name):
		return "name", "certificate is for another name: " + name.Error()
	case errors.As(err, &unknown):
		return "authority", "certificate signed by an unknown authority"
	case errors.As(err, &invalid):
		return "certificate", invalid.Error()
	case errors.Is(err, errPin):
		return "pin", errPin.Error()
	}
	return dialKind(err), reason(err)
}

func validity(c *x509.Certificate) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf(": it is valid from %s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
}

// expiry is when the server's certificate stops being good: of a chain the
// earliest date counts, of several chains that verify the one that lasts longest. A
// server may send certificates which nobody needs, and these may end.
func expiry(s *tls.ConnectionState) time.Time {
	var best time.Time
	for _, chain := range s.VerifiedChains {
		if e := earliest(chain); e.After(best) {
			best = e
		}
	}
	if best.IsZero() {
		return earliest(s.PeerCertificates)
	}
	return best
}

func earliest(chain []*x509.Certificate) (t time.Time) {
	for _, c := range chain {
		if t.IsZero() || c.NotAfter.Before(t) {
			t = c.NotAfter
		}
	}
	return t
}
