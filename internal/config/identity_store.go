package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The pair with which the members of the embedded store meet each other. It is not
// the site's own: a member dials the others by address, so that what it can check of
// them is one name that all members share, and only members have a pair of that name.
const (
	storeKeyFile  = "store.key"
	storeCertFile = "store.crt"
)

// StoreName is the name that every member of the embedded store shows. It resolves to
// nothing, and no site can have it: a site's name holds no dot.
const StoreName = "store.rhumb"

// JoinStore makes, in out, the pair by which a site carries a member of the embedded
// store, signed by the group in dir. It touches no other file there: an identity that
// is in use becomes able to carry a member, and one that can gets a new pair.
func JoinStore(dir, site, out string, now time.Time) error {
	if !isLabel(site) {
		return fmt.Errorf("identity: store: %q is not a site name", site)
	}
	ca, caKey, err := loadGroup(dir)
	if err != nil {
		return fmt.Errorf("identity: store %s: %w", site, err)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: store %s: %w", site, err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: site}, DNSNames: []string{StoreName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(5, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, pub, caKey)
	if err != nil {
		return fmt.Errorf("identity: store %s: %w", site, err)
	}
	if err := record(dir, site, tmpl, der); err != nil {
		return fmt.Errorf("identity: store %s: %w", site, err)
	}
	err = errors.Join(os.MkdirAll(out, 0o700), writeKey(filepath.Join(out, storeKeyFile), key),
		writePEM(filepath.Join(out, storeCertFile), "CERTIFICATE", der, 0o644))
	if err != nil {
		return fmt.Errorf("identity: store %s: %w", site, err)
	}
	return nil
}

// record keeps a certificate that the group signs: unrecorded it could not be revoked.
func record(dir, site string, tmpl *x509.Certificate, der []byte) error {
	file := filepath.Join(dir, issuedDir, site+"-"+tmpl.SerialNumber.Text(16)+".crt")
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), writePEM(file, "CERTIFICATE", der, 0o644))
}

// StorePair tells whether this identity holds the pair of a member that can be shown:
// nil, or what is wrong with it. fs.ErrNotExist stands for: this site carries no member.
// A pair whose time has run out can be shown; whoever sees it refuses it, until it is
// replaced, which takes no restart.
func (id *Identity) StorePair() error {
	if _, err := id.store.get(); err != nil {
		return err
	}
	return secret(id.store.key)
}

// OwnCertificate is one of an identity's own, as it is shown to others.
type OwnCertificate struct {
	File string
	Ends time.Time
	// Refused is why what is in the files now is not shown, but what was there before.
	Refused error
}

// Certificates returns what this identity shows at the store; that of a member, too.
func (id *Identity) Certificates(member bool) []OwnCertificate {
	all := []*pairFiles{id.site}
	if member {
		all = append(all, id.store)
	}
	var out []OwnCertificate
	for _, p := range all {
		if c, err := p.get(); err == nil {
			out = append(out, OwnCertificate{File: filepath.Base(p.cert), Ends: c.Leaf.NotAfter, Refused: p.trouble()})
		}
	}
	return out
}

// StoreFiles are the files of a member's pair and of the group's certificate.
func (id *Identity) StoreFiles() (cert, key, ca string) {
	return filepath.Join(id.dir, storeCertFile), filepath.Join(id.dir, storeKeyFile), filepath.Join(id.dir, groupCertFile)
}

// StoreClient returns the configuration of connections to the store's members: this
// site shows its own certificate, and the other side must show a member's. Both files
// of the own one are read anew when they have changed.
func (id *Identity) StoreClient() *tls.Config {
	c := id.TLS(StoreName)
	c.Certificates = nil
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.site.get() }
	return c
}

// StoreServer returns the configuration of a member's own port. Whoever connects shows
// a certificate of the group that is not revoked; other members, a member's. An
// identity without a member's pair has none.
func (id *Identity) StoreServer(members bool) *tls.Config {
	c := id.TLS("")
	c.Certificates = nil
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.store.get() }
	if members {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if err := id.verifyConnection(s); err != nil {
				return err
			}
			if leaf := s.PeerCertificates[0]; !slices.Contains(leaf.DNSNames, StoreName) {
				return fmt.Errorf("identity: the certificate of %s is no member's of the store", leaf.Subject.CommonName)
			}
			return nil
		}
	}
	return c
}

// signedEver checks as verify does, but for the dates: a site goes on with a
// certificate that has run out, and leaves it to others to refuse it.
func (id *Identity) signedEver(cert *x509.Certificate) error {
	opts := x509.VerifyOptions{Roots: id.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	_, err := cert.Verify(opts)
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		opts.CurrentTime = cert.NotBefore.Add(time.Hour) // when it was signed
		_, err = cert.Verify(opts)
	}
	return err
}

// fit returns the check of a certificate that this identity would show: of the group,
// for one name, and made for this site.
func (id *Identity) fit(name, site string) func(*x509.Certificate) error {
	return func(c *x509.Certificate) error {
		if err := id.signedEver(c); err != nil {
			return err
		}
		if len(c.DNSNames) != 1 || c.DNSNames[0] != name || c.Subject.CommonName != site {
			return fmt.Errorf("it is that of %v at %s, want %s at %s", c.DNSNames, c.Subject.CommonName, name, site)
		}
		return nil
	}
}

// pairFiles is a certificate and its key in files, read again when one of them has
// changed. Safe for concurrent use.
type pairFiles struct {
	cert, key string
	fit       func(*x509.Certificate) error

	mu      sync.Mutex
	at      [2]os.FileInfo
	last    *tls.Certificate
	refused error
}

// get returns the pair. While what is in the files is not good (one of the two being
// replaced, or a mistake), the last good pair stays.
func (p *pairFiles) get() (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var at [2]os.FileInfo
	for i, file := range []string{p.cert, p.key} {
		info, err := os.Stat(file)
		if err != nil {
			return p.stay(err)
		}
		at[i] = info
	}
	if p.last != nil && p.refused == nil && same(at[0], p.at[0]) && same(at[1], p.at[1]) {
		return p.last, nil
	}
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err == nil {
		err = p.fit(pair.Leaf)
	}
	if err != nil {
		return p.stay(fmt.Errorf("%s: %w", p.cert, err))
	}
	p.at, p.last, p.refused = at, &pair, nil
	return p.last, nil
}

// stay keeps the last good pair, where there is one.
func (p *pairFiles) stay(err error) (*tls.Certificate, error) {
	p.refused = err
	if p.last != nil {
		return p.last, nil
	}
	return nil, err
}

// trouble returns why the files are not taken as they are.
func (p *pairFiles) trouble() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// same tells whether a file is still what it was; a replaced one is another inode.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
