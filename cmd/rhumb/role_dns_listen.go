package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"rhumb/authdns"
	"rhumb/authdns/tap"
	"rhumb/internal/api"
	"rhumb/internal/config"
	"rhumb/placement"
)

// dnsConfig is what the node file says of the name server. Its files are read here;
// those that may be renewed are followed.
func dnsConfig(u *unit) (authdns.Config, error) {
	d := &u.cfg.DNS
	c := authdns.Config{Site: u.cfg.Node.Site, Node: u.cfg.Node.Name, Version: version, Current: u.current,
		Mode: u.cfg.Mode, Logger: u.log, Registerer: u.metrics, SignBudget: u.cfg.DNSSEC.Budget, HideIdentity: d.HideIdentity, Proxies: d.Proxies, Resolvers: d.Resolvers, Crashes: filepath.Join(u.cfg.Node.DataDir, "authdns"),
		Limits: authdns.Limits{Rate: d.Limit.Rate, Slip: d.Limit.Slip, Exempt: d.Limit.Exempt,
			Idle: d.TCP.Idle.D(), Connections: d.TCP.Connections, PerClient: d.TCP.PerClient},
		Overload: overloadPolicy(d.Overload), Tap: newTap(u)}
	listen(&c, placement.TopLevel, u.cfg.Listen.Top, nil)
	listen(&c, placement.LowLevel, u.cfg.Listen.Low, nil)
	if d.Cookies != "" {
		secrets, err := readSecrets(d.Cookies)
		if err != nil {
			return c, err
		}
		c.Secrets = secrets
	}
	if err := listenDoT(&c, &u.cfg.Listen.DoT); err != nil {
		return c, err
	}
	if err := listenDoH(&c, &u.cfg.Listen.DoH); err != nil {
		return c, err
	}
	return c, listenDoQ(&c, &u.cfg.Listen.DoQ)
}

func listen(c *authdns.Config, level placement.Level, addrs []netip.AddrPort, conf *tls.Config) {
	for _, a := range addrs {
		c.Listeners = append(c.Listeners, authdns.Listener{Level: level, Addr: a, TLS: conf})
	}
}

// listenDoT adds the listeners of DNS over TLS. A renewed certificate is shown to
// the next who connects; one that does not fit its key leaves the last good pair.
func listenDoT(c *authdns.Config, d *config.DoT) error {
	if len(d.Top)+len(d.Low) == 0 {
		return nil
	}
	conf, err := api.TLS(api.TLSFiles{Cert: d.Cert, Key: d.Key})
	if err != nil {
		return fmt.Errorf("listen.dot: %w", err)
	}
	conf.NextProtos = []string{"dot"} // the protocol's ALPN token (RFC 7858, IANA)
	listen(c, placement.TopLevel, d.Top, conf)
	listen(c, placement.LowLevel, d.Low, conf)
	return nil
}

// listenDoH adds the listeners of DNS over HTTPS; of their certificate the same holds.
func listenDoH(c *authdns.Config, d *config.DoH) error {
	if len(d.Top)+len(d.Low) == 0 {
		return nil
	}
	conf, err := api.TLS(api.TLSFiles{Cert: d.Cert, Key: d.Key})
	if err != nil {
		return fmt.Errorf("listen.doh: %w", err)
	}
	before := len(c.Listeners)
	listen(c, placement.TopLevel, d.Top, conf)
	listen(c, placement.LowLevel, d.Low, conf)
	for i := range c.Listeners[before:] {
		c.Listeners[before+i].HTTP = cmp.Or(d.Path, "/dns-query")
	}
	return nil
}

// listenDoQ adds the listeners of DNS over QUIC; of their certificate the same holds.
func listenDoQ(c *authdns.Config, d *config.DoQ) error {
	if len(d.Top)+len(d.Low) == 0 {
		return nil
	}
	conf, err := api.TLS(api.TLSFiles{Cert: d.Cert, Key: d.Key})
	if err != nil {
		return fmt.Errorf("listen.doq: %w", err)
	}
	before := len(c.Listeners)
	listen(c, placement.TopLevel, d.Top, conf)
	listen(c, placement.LowLevel, d.Low, conf)
	for i := range c.Listeners[before:] {
		c.Listeners[before+i].QUIC = true
	}
	quietQUIC()
	return nil
}

// quietQUIC keeps the library from telling in its own way that the receive buffers are
// small: the name server tells it in its log, and a client has no use for large ones.
func quietQUIC() { os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") }

// newTap is who tells a dnstap collector; nil where the node file names none.
func newTap(u *unit) *tap.Tap {
	d := &u.cfg.DNS.Dnstap
	c := tap.Config{Network: "unix", Address: d.Socket, Every: d.Sample, Identity: u.cfg.Node.Name, Version: "rhumb " + version, Log: u.log}
	if d.TCP != "" {
		c.Network, c.Address = "tcp", d.TCP
	}
	if c.Address == "" {
		return nil
	}
	return tap.New(c)
}

// readSecrets reads a file of cookie secrets. Whoever can read it can make cookies,
// and pass for any address.
func readSecrets(file string) ([]authdns.Secret, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("dns.cookies: %w", err)
	}
	if fi.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("dns.cookies: %s: mode %s: everybody can read it; chmod o-rwx", file, fi.Mode().Perm())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("dns.cookies: %w", err)
	}
	secrets, err := authdns.ParseSecrets(data)
	if err != nil {
		return nil, fmt.Errorf("dns.cookies: %s: %w", file, err)
	}
	return secrets, nil
}

// secretPace is how often a file of secrets is looked at.
const secretPace = 5 * time.Second

// followSecrets gives a server the secrets of a file whenever they have changed.
// A file that is wrong leaves the last ones in force, and is told once.
func followSecrets[S comparable](ctx context.Context, of, file string, read func(string) ([]S, error), held []S, set func([]S), log *slog.Logger) error {
	var last fileStamp
	tick := time.NewTicker(secretPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := stampOf(file)
		if now == last {
			continue
		}
		last = now
		secrets, err := read(file)
		if err != nil {
			log.Error(of+": the last good ones stay", "err", err)
			continue
		}
		if slices.Equal(secrets, held) {
			continue
		}
		held = secrets
		set(secrets)
		log.Info(of+" taken in", "secrets", len(secrets))
	}
}

// fileStamp is what of a file changes when it is replaced.
type fileStamp struct {
	size     int64
	modified time.Time
	mode     os.FileMode
}

// stampOf is the zero value for a file that is not there.
func stampOf(file string) fileStamp {
	fi, err := os.Stat(file)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{fi.Size(), fi.ModTime(), fi.Mode()}
}
