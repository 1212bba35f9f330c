package api

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
)

// TLSFiles name a server's certificate and key, and optionally the authority of
// client certificates.
type TLSFiles struct {
	Cert, Key string
	// Clients is a file of CA certificates. A client certificate signed by one
	// of them carries its role as organizational unit: viewer or operator.
	Clients string
}

// TLS makes the configuration of a listener. Certificate and key are read anew when
// they change; a pair that does not fit leaves the last good one standing.
func TLS(f TLSFiles) (*tls.Config, error) {
	pair := &keyPair{files: f}
	if err := pair.refresh(); err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get(), nil }}
	if f.Clients == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.Clients)
	if err != nil {
		return nil, fmt.Errorf("api: client authority: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("api: client authority %s: no certificate in it", f.Clients)
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	return c, nil
}

// keyPair is a certificate with its key, as the files hold them.
type keyPair struct {
	files TLSFiles

	mu     sync.Mutex
	stamps [2]stamp
	cert   *tls.Certificate
}

func (p *keyPair) get() *tls.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.refresh() // the last good pair serves on; its end shows in every client
	return p.cert
}

func (p *keyPair) refresh() error {
	var now [2]stamp
	for i, file := range []string{p.files.Cert, p.files.Key} {
		fi, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("api: tls: %w", err)
		}
		now[i] = stamp{fi.Size(), fi.ModTime()}
	}
	if p.cert != nil && now == p.stamps {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(p.files.Cert, p.files.Key)
	if err != nil {
		return fmt.Errorf("api: tls %s, %s: %w", p.files.Cert, p.files.Key, err)
	}
	p.cert, p.stamps = &cert, now
	return nil
}

// certCaller is whom a verified client certificate names. Its unit is its role; a
// certificate of that authority without one may do nothing.
func certCaller(r *http.Request) caller {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return caller{}
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	c := caller{who: "certificate " + subject.CommonName}
	for _, word := range []string{WordOperator, WordViewer} {
		if slices.Contains(subject.OrganizationalUnit, word) {
			c.role, _ = roleOf(word)
			break
		}
	}
	return c
}
