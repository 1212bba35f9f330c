package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"rhumb/authdns"
	"rhumb/authdns/transfer"
	"rhumb/authdns/zone"
	"rhumb/internal/api"
	"rhumb/placement"
)

// maxTransfers is how many transfers may leave at once where the node file says nothing.
const maxTransfers = 20

// transfers are the parts of a name server by which zones leave and come.
type transfers struct {
	desk     *transfer.Desk
	in       *transfer.In
	notifier *transfer.Notifier
	// changed has an element when a copy is new, or may no longer be served.
	changed chan struct{}
}

// newTransfers builds them; nothing is sent before they run.
func newTransfers(u *unit) (*transfers, error) {
	cfg := &u.cfg.Transfers
	x := &transfers{changed: make(chan struct{}, 1)}
	var keys *transfer.Keyring
	var err error
	if cfg.Keys != "" {
		if keys, err = transfer.LoadKeys(cfg.Keys); err != nil {
			return nil, fmt.Errorf("%s: %w", u.name, err)
		}
	}
	roots, err := authorities(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("%s: transfers: ca: %w", u.name, err)
	}
	x.notifier = transfer.NewNotifier(keys, cfg.Source, u.log)
	x.in = transfer.NewIn(transfer.Config{Dir: filepath.Join(u.cfg.Node.DataDir, "secondary"), Keys: keys, Source: cfg.Source,
		TLS: &tls.Config{RootCAs: roots}, Check: checkCopy, Changed: x.tell, Log: u.log})
	most := cfg.Max
	if most == 0 {
		most = maxTransfers
	}
	x.desk = &transfer.Desk{Keys: keys, Out: &transfer.Out{Max: most, Teller: x.notifier}, In: x.in, Now: time.Now}
	return x, nil
}

// authorities reads certificates; nil means those of the system.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// tell says that a copy has changed; one that was not yet looked at says it for both.
func (x *transfers) tell() {
	select {
	case x.changed <- struct{}{}:
	default:
	}
}

// listenTLS adds listeners over TLS, for transfers that nobody may read on the way
// (RFC 9103); whoever asks an ordinary question there is answered as well.
func (x *transfers) listenTLS(u *unit, c *authdns.Config) error {
	l := &u.cfg.Transfers.TLS
	if len(l.Listen) == 0 {
		return nil
	}
	conf, err := api.TLS(api.TLSFiles{Cert: l.Cert, Key: l.Key})
	if err != nil {
		return fmt.Errorf("transfers: tls: %w", err)
	}
	conf.NextProtos, conf.MinVersion = []string{"dot"}, tls.VersionTLS13
	listen(c, placement.LowLevel, l.Listen, conf)
	return nil
}

// checkCopy judges a version of a zone as a file of the operator's is judged.
func checkCopy(name string, text []byte) ([]string, error) {
	z, err := zone.Parse(name+"zone", name, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return z.Names(), nil
}

// report adds to zones that are copies where they come from, and what is wrong.
func (x *transfers) report(zones []placement.ZoneStatus) {
	for i := range zones {
		z := &zones[i]
		h, ok := x.in.Held(z.Name)
		if !ok {
			continue
		}
		if z.Error == "" {
			z.Error = h.Fault
		}
		if h.Primary.IsValid() {
			z.Primary, z.Received = h.Primary.String(), h.At.UTC()
		}
	}
}

// copies holds zones that come from primaries.
type copies interface {
	Set([]transfer.Incoming)
	Held(zone string) (transfer.Held, bool)
	Listed(zone string) transfer.Listing
}

// want passes on which zones are to be copied, and from where.
func (z *zoneKeeper) want(inv *placement.Inventory) {
	if z.copies == nil {
		return
	}
	var out []transfer.Incoming
	for i := range inv.Zones {
		s := inv.Zones[i].Secondary
		if s == nil {
			continue
		}
		in := transfer.Incoming{Name: inv.Zones[i].Name, Primaries: s.Primaries, Key: s.Key, TLS: s.TLS, KeepNames: inv.Safety.KeepNames}
		if s.AllowShrink {
			in.KeepNames = 0
		}
		in.Catalog = inv.Zones[i].Catalog != nil
		if c, ok := z.catalogs.claims[in.Name]; ok {
			in.Listed = transfer.Listing{Catalog: c.Catalog, ID: c.ID, From: c.From}
		}
		out = append(out, in)
	}
	z.copies.Set(out)
}

// asHeld returns the zones with digest and serial of those that are copies, as they
// are held now; what may not be served has none.
func (z *zoneKeeper) asHeld(zones []placement.Zone) []placement.Zone {
	out := slices.Clone(zones)
	for i := range out {
		if out[i].Secondary == nil {
			continue
		}
		out[i].SHA256, out[i].Serial = "", 0
		if h, ok := z.copyOf(out[i].Name); ok && h.Unserved == "" {
			out[i].SHA256, out[i].Serial, out[i].Size = h.SHA256, h.Serial, len(h.Data)
		}
	}
	return out
}

// copyOf is what is held for a zone.
func (z *zoneKeeper) copyOf(name string) (transfer.Held, bool) {
	if z.copies == nil {
		return transfer.Held{}, false
	}
	return z.copies.Held(name)
}

// copySource is the source of a zone that is a copy. One which was never received
// is ours all the same: it is answered with SERVFAIL, not refused.
func (z *zoneKeeper) copySource(meta placement.Zone) authdns.Source {
	h, ok := z.copyOf(meta.Name)
	if !ok {
		return authdns.Source{Zone: meta, Unserved: "not received yet"}
	}
	// The digest is that of what is handed over now: a newer one may have come.
	meta.SHA256 = h.SHA256
	return authdns.Source{Zone: meta, Data: h.Data, Unserved: h.Unserved}
}
