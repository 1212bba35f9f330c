package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"rhumb/edge/content"
)

// lookEvery is how often the files of a certificate are looked at.
const lookEvery = 5 * time.Second

// errExpired: a certificate that would be worse than the one it replaces.
var errExpired = errors.New("has expired")

// certificates keep the certificate of one service equal to two files. Files
// that make none leave the last good one in service: what renews certificates
// breaks more often than it forges them. get and Expiry are safe for concurrent
// use, the rest belongs to run.
type certificates struct {
	service   string
	cert, key string
	log       *slog.Logger
	m         *tlsMetrics
	now       atomic.Pointer[tls.Certificate]
	bad       atomic.Pointer[string] // why the files are not what is served; nil: they are
	good      [2]content.Stamp       // of the files that made now
	fails     int
}

// newCertificates needs good files to begin with.
func newCertificates(service, cert, key string, m *tlsMetrics, log *slog.Logger) (*certificates, error) {
	c := &certificates{service: service, cert: cert, key: key, log: log, m: m}
	stamps, err := c.stamps()
	if err == nil {
		err = c.load(stamps, time.Time{})
	}
	if err != nil {
		return nil, fmt.Errorf("edge: certificate of %s: %w", service, err)
	}
	if end := c.expiry(); time.Now().After(end) {
		log.Error("certificate has expired", "file", cert, "expired", end)
	}
	return c, nil
}

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil }

func (c *certificates) expiry() time.Time { return c.now.Load().Leaf.NotAfter }

// rejected is why the files on disk are not served, "" if they are.
func (c *certificates) rejected() string {
	if r := c.bad.Load(); r != nil {
		return *r
	}
	return ""
}

func (c *certificates) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.look(now)
		}
	}
}

// look takes new files if they changed and are good. The two files are not
// replaced at one moment, so the first failure is not told; later ones are, once
// for each reason.
func (c *certificates) look(now time.Time) {
	stamps, err := c.stamps()
	if err == nil && stamps == c.good {
		c.settle()
		return
	}
	if err == nil {
		err = c.load(stamps, now)
	}
	if err == nil {
		c.settle()
		c.log.Info("certificate was renewed", "file", c.cert, "expires", c.expiry())
		return
	}
	why := err.Error()
	if c.fails++; c.fails < 2 || why == c.rejected() {
		return
	}
	c.bad.Store(&why)
	c.m.rejected.WithLabelValues(c.service).Set(1)
	c.log.Error("new certificate is not served, the last good one is", "file", c.cert, "expires", c.expiry(), "err", err)
}

// settle notes that what is served is what the files say.
func (c *certificates) settle() {
	c.fails = 0
	c.bad.Store(nil)
	c.m.rejected.WithLabelValues(c.service).Set(0)
}

// load makes the files the certificate in service. One that expired before now
// is refused.
func (c *certificates) load(stamps [2]content.Stamp, now time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	if now.After(pair.Leaf.NotAfter) {
		return fmt.Errorf("%s of %s: %w", c.cert, pair.Leaf.NotAfter.UTC().Format(time.RFC3339), errExpired)
	}
	c.now.Store(&pair)
	c.good = stamps
	c.m.expiry.WithLabelValues(c.service).Set(float64(pair.Leaf.NotAfter.Unix()))
	c.m.rejected.WithLabelValues(c.service).Set(0)
	return nil
}

func (c *certificates) stamps() (out [2]content.Stamp, err error) {
	for i, name := range [2]string{c.cert, c.key} {
		st, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = content.StampOf(st)
	}
	return out, nil
}
