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

// CarriesStore tells whether this identity holds the pair of a member.
func (id *Identity) CarriesStore() bool { return id.store != nil }

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

// loadStorePair takes the pair of a member, where there is one. One that the group
// did not sign, or that everybody can read, is a mistake like one in the site's own.
func (id *Identity) loadStorePair() error {
	cert, key, _ := id.StoreFiles()
	if _, err := os.Stat(cert); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	p := &pairFiles{cert: cert, key: key}
	c, err := p.get()
	if err != nil {
		return err
	}
	leaf, err := id.verify(c.Certificate[0])
	if err != nil {
		return fmt.Errorf("%s: %w", storeCertFile, err)
	}
	if leaf.DNSNames[0] != StoreName || leaf.Subject.CommonName != id.Site {
		return fmt.Errorf("%s is that of %s at %s, want %s at %s", storeCertFile, leaf.DNSNames[0], leaf.Subject.CommonName, StoreName, id.Site)
	}
	id.store = p
	return secret(key)
}

// pairFiles is a certificate and its key in files, read again when one of them has
// changed. Safe for concurrent use.
type pairFiles struct {
	cert, key string

	mu   sync.Mutex
	at   [2]os.FileInfo
	last *tls.Certificate
}

// get returns the pair. While the files do not fit each other, one of them being
// replaced, the last good pair stays.
func (p *pairFiles) get() (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var at [2]os.FileInfo
	var err [2]error
	at[0], err[0] = os.Stat(p.cert)
	at[1], err[1] = os.Stat(p.key)
	if p.last != nil && (errors.Join(err[:]...) != nil || same(at[0], p.at[0]) && same(at[1], p.at[1])) {
		return p.last, nil
	}
	pair, e := tls.LoadX509KeyPair(p.cert, p.key)
	if e != nil {
		if p.last != nil {
			return p.last, nil
		}
		return nil, e
	}
	p.at, p.last = at, &pair
	return p.last, nil
}

// same tells whether a file is still what it was; a replaced one is another inode.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
