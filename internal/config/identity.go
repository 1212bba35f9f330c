package config

import (
	"cmp"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The files of an identity. group.key stays offline; a site gets the others.
const (
	groupKeyFile  = "group.key"
	groupCertFile = "group.crt"
	siteKeyFile   = "site.key"
	siteCertFile  = "site.crt"
	pairKeyFile   = "pair.key"
	// issuedDir, in the group's directory, keeps every certificate ever signed,
	// as SITE-SERIAL.crt: whoever has to revoke one cannot ask the site for it.
	issuedDir = "issued"
)

// Identity is who a site is to the others: a certificate signed by the group's
// offline key, and a Diffie-Hellman key from which every pair of sites derives
// keys of its own, so that no shared secret is stored anywhere. It is not changed
// after it was handed out, and safe for concurrent use.
type Identity struct {
	Site string
	Cert tls.Certificate
	// Revoked returns the serials that the fleet revokes (placement.Fleet.Revoked);
	// nil: none. It is asked at each key and each handshake, from any goroutine.
	Revoked func() []string

	dir   string
	pool  *x509.CertPool // the group's certificate alone
	pair  *ecdh.PrivateKey
	site  *pairFiles // the files of Cert, for connections that outlive it
	store *pairFiles // of a member of the store; read by those who carry one alone
}

// InitGroup makes a group's key and certificate in dir; it never overwrites one.
func InitGroup(dir string, now time.Time) error {
	if _, err := os.Stat(filepath.Join(dir, groupKeyFile)); err == nil {
		return fmt.Errorf("identity: init %s: there is a group key already", dir)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: init %s: %w", dir, err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "rhumb group"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		return fmt.Errorf("identity: init %s: %w", dir, err)
	}
	return errors.Join(os.MkdirAll(dir, 0o700), writeKey(filepath.Join(dir, groupKeyFile), key),
		writePEM(filepath.Join(dir, groupCertFile), "CERTIFICATE", der, 0o644))
}

// JoinGroup makes the identity of a site in out, signed by the group in dir.
func JoinGroup(dir, site, out string, now time.Time) error {
	if !isLabel(site) {
		return fmt.Errorf("identity: join: %q is not a site name", site)
	}
	ca, caKey, err := loadGroup(dir)
	if err != nil {
		return fmt.Errorf("identity: join %s: %w", site, err)
	}
	pair, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: join %s: %w", site, err)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: join %s: %w", site, err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: site}, DNSNames: []string{site},
		URIs:      []*url.URL{{Scheme: "rhumb", Opaque: "x25519:" + hex.EncodeToString(pair.PublicKey().Bytes())}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(5, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, pub, caKey)
	if err != nil {
		return fmt.Errorf("identity: join %s: %w", site, err)
	}
	if err := record(dir, site, tmpl, der); err != nil {
		return fmt.Errorf("identity: join %s: %w", site, err)
	}
	return errors.Join(os.MkdirAll(out, 0o700), writeKey(filepath.Join(out, siteKeyFile), key),
		writePEM(filepath.Join(out, siteCertFile), "CERTIFICATE", der, 0o644),
		writePEM(filepath.Join(out, pairKeyFile), "X25519 PRIVATE KEY", pair.Bytes(), 0o600),
		writePEM(filepath.Join(out, groupCertFile), "CERTIFICATE", ca.Raw, 0o644))
}

// Issued is a certificate that a group has signed.
type Issued struct {
	Site   string
	Serial string // lower-case hex, as in placement.Fleet.Revoked
	Made   time.Time
}

// IssuedTo lists the certificates that the group in dir has signed for a site,
// oldest first.
func IssuedTo(dir, site string) ([]Issued, error) {
	entries, err := os.ReadDir(filepath.Join(dir, issuedDir))
	if err != nil {
		return nil, fmt.Errorf("identity: certificates of %s: %w", site, err)
	}
	var out []Issued
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), site+"-") {
			continue
		}
		one, err := ReadIssued(filepath.Join(dir, issuedDir, e.Name()))
		if err != nil {
			return nil, err
		}
		if one.Site == site { // and not of site ams1-b, where ams1 is asked for
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b Issued) int { return cmp.Or(a.Made.Compare(b.Made), strings.Compare(a.Serial, b.Serial)) })
	return out, nil
}

// ReadIssued reads one certificate file. It checks no signature: a certificate
// that the group did not sign may be revoked, too.
func ReadIssued(file string) (Issued, error) {
	der, err := readPEM(file)
	if err != nil {
		return Issued{}, fmt.Errorf("identity: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Issued{}, fmt.Errorf("identity: %s: %w", file, err)
	}
	return Issued{Site: cert.Subject.CommonName, Serial: cert.SerialNumber.Text(16), Made: cert.NotBefore}, nil
}

// LoadIdentity reads what JoinGroup wrote. It refuses keys which everybody on the
// machine can read, and a pair key which is not that of the certificate, since the
// others would derive other keys and every beat would be a forgery to them. That the
// certificate has run out is no mistake of a unit that starts: others refuse it, and
// what needs none of them is served on. Nor is anything about a member's pair, which
// most units never show.
func LoadIdentity(dir string) (*Identity, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, siteCertFile), filepath.Join(dir, siteKeyFile))
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", dir, err)
	}
	raw, err := readPEM(filepath.Join(dir, pairKeyFile))
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", dir, err)
	}
	pair, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %s: %w", dir, pairKeyFile, err)
	}
	group, err := os.ReadFile(filepath.Join(dir, groupCertFile))
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", dir, err)
	}
	id := &Identity{Cert: cert, dir: dir, pair: pair, pool: x509.NewCertPool()}
	if !id.pool.AppendCertsFromPEM(group) {
		return nil, fmt.Errorf("identity %s: %s holds no certificate", dir, groupCertFile)
	}
	if err := id.own(); err != nil {
		return nil, fmt.Errorf("identity %s: %w", dir, err)
	}
	return id, nil
}

// own checks this site's certificate and keys, and takes its name from there.
func (id *Identity) own() error {
	leaf := id.Cert.Leaf
	if err := id.signedEver(leaf); err != nil {
		return err
	}
	if len(leaf.DNSNames) != 1 {
		return fmt.Errorf("certificate of %s names %d sites, want one", leaf.Subject.CommonName, len(leaf.DNSNames))
	}
	id.Site = leaf.DNSNames[0]
	at := func(name string) string { return filepath.Join(id.dir, name) }
	id.site = &pairFiles{cert: at(siteCertFile), key: at(siteKeyFile), fit: id.fit(id.Site, id.Site)}
	id.store = &pairFiles{cert: at(storeCertFile), key: at(storeKeyFile), fit: id.fit(StoreName, id.Site)}
	pub, err := pairPublic(leaf)
	if err != nil {
		return err
	}
	if !pub.Equal(id.pair.PublicKey()) {
		return fmt.Errorf("%s is not the key of %s", pairKeyFile, siteCertFile)
	}
	_, err = id.site.get() // from here on the last good pair is there
	return errors.Join(err, secret(at(siteKeyFile)), secret(at(pairKeyFile)))
}

// secret tells whether others than owner and group can read a file.
func secret(file string) error {
	info, err := os.Stat(file)
	if err == nil && info.Mode().Perm()&0o007 != 0 {
		err = fmt.Errorf("%s has mode %04o: everybody can read it", file, info.Mode().Perm())
	}
	return err
}

// live refuses a certificate that the fleet revokes.
func (id *Identity) live(cert *x509.Certificate) error {
	if serial := cert.SerialNumber.Text(16); id.Revoked != nil && slices.Contains(id.Revoked(), serial) {
		return fmt.Errorf("the certificate of %s with serial %s is revoked", cert.Subject.CommonName, serial)
	}
	return nil
}

// verify checks that a certificate was signed by the group and names one site.
func (id *Identity) verify(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	opts := x509.VerifyOptions{Roots: id.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := cert.Verify(opts); err != nil {
		return nil, err
	}
	if len(cert.DNSNames) != 1 {
		return nil, fmt.Errorf("certificate of %s names %d sites, want one", cert.Subject.CommonName, len(cert.DNSNames))
	}
	return cert, nil
}

// PairKey derives the key which this site and a peer share for one purpose
// (X25519, RFC 7748; HKDF with SHA-256, RFC 5869). The peer's certificate, in
// PEM, must be signed by the group, name the peer, and not be revoked. Both ends
// come to the same key, and to another one for each purpose.
func (id *Identity) PairKey(peer, peerPEM, purpose string) (key [32]byte, err error) {
	block, _ := pem.Decode([]byte(peerPEM))
	if block == nil {
		return key, fmt.Errorf("identity: peer %s: no certificate in the fleet", peer)
	}
	cert, err := id.verify(block.Bytes)
	if err != nil {
		return key, fmt.Errorf("identity: peer %s: %w", peer, err)
	}
	if err := id.live(cert); err != nil {
		return key, fmt.Errorf("identity: peer %s: %w", peer, err)
	}
	if cert.DNSNames[0] != peer {
		return key, fmt.Errorf("identity: peer %s: its certificate names %s", peer, cert.DNSNames[0])
	}
	pub, err := pairPublic(cert)
	if err != nil {
		return key, fmt.Errorf("identity: peer %s: %w", peer, err)
	}
	secret, err := id.pair.ECDH(pub)
	if err != nil {
		return key, fmt.Errorf("identity: peer %s: %w", peer, err)
	}
	ends := []string{id.Site, peer}
	slices.Sort(ends)
	out, err := hkdf.Key(sha256.New, secret, []byte(strings.Join(ends, "\x00")), "rhumb "+purpose, len(key))
	if err != nil {
		return key, fmt.Errorf("identity: peer %s: %w", peer, err)
	}
	copy(key[:], out)
	return key, nil
}

// pairPublic reads the Diffie-Hellman key which a certificate carries as a URI: it
// is signed with all the rest, and no library trips over an extension.
func pairPublic(cert *x509.Certificate) (*ecdh.PublicKey, error) {
	for _, u := range cert.URIs {
		if text, ok := strings.CutPrefix(u.Opaque, "x25519:"); ok && u.Scheme == "rhumb" {
			raw, err := hex.DecodeString(text)
			if err != nil {
				return nil, err
			}
			return ecdh.X25519().NewPublicKey(raw)
		}
	}
	return nil, errors.New("its certificate carries no pair key")
}

// TLS returns a configuration for both ends of a connection between sites: TLS
// 1.3, both sides show certificates of the group, and nobody else is let in. What
// is revoked is refused at each new connection, resumed ones included; those that
// stand are not ended.
func (id *Identity) TLS(serverName string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{id.Cert}, RootCAs: id.pool, ClientCAs: id.pool,
		ClientAuth: tls.RequireAndVerifyClientCert, ServerName: serverName, MinVersion: tls.VersionTLS13,
		VerifyConnection: id.verifyConnection}
}

func (id *Identity) verifyConnection(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 {
		return errors.New("identity: the other side shows no certificate")
	}
	if err := id.live(c.PeerCertificates[0]); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// serial returns a random serial number: positive, 127 bits (RFC 5280, 4.1.2.2).
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// loadGroup reads the group's certificate and its key, which is Ed25519 and nothing
// else (RFC 8410).
func loadGroup(dir string) (*x509.Certificate, ed25519.PrivateKey, error) {
	der, err := readPEM(filepath.Join(dir, groupCertFile))
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	raw, err := readPEM(filepath.Join(dir, groupKeyFile))
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s is no Ed25519 key", groupKeyFile)
	}
	return cert, ed, nil
}

// writeKey writes a private key for its owner alone.
func writeKey(file string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(file, "PRIVATE KEY", der, 0o600)
}

// writePEM replaces a file whole, so that one which lay there with a wider mode
// does not lend it to a key.
func writePEM(file, kind string, der []byte, mode os.FileMode) error {
	tmp := file + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// readPEM returns the first block of a file, of whatever kind: its reader parses it.
func readPEM(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM block", file)
	}
	return block.Bytes, nil
}
