package config

import (
	"net/netip"
	"slices"

	"rhumb/placement"
)

// Transfers is what a node needs for copying zones; who may copy which is the
// fleet's to say, since it is the same everywhere.
type Transfers struct {
	// Keys is the file with TSIG secrets, which nobody else may read.
	Keys string `yaml:"keys"`
	// Source is the address from which primaries are asked and secondaries told;
	// the routing table's choice by default.
	Source netip.Addr `yaml:"source"`
	// Max is how many transfers may leave at once; 20 by default.
	Max int `yaml:"max"`
	// CA is the authority of primaries over TLS; the system's by default.
	CA string `yaml:"ca"`
	// TLS answers over TLS (RFC 7858, RFC 9103).
	TLS TransfersTLS `yaml:"tls"`
}

// TransfersTLS is a listener over TLS.
type TransfersTLS struct {
	Listen []netip.AddrPort `yaml:"listen"`
	Cert   string           `yaml:"cert"`
	Key    string           `yaml:"key"`
}

// check records mistakes. Files are not opened: a node file can be checked on
// another machine than its own.
func (t *Transfers) check(src *source, n *Node) {
	at := func(key string) []string { return []string{"transfers", key} }
	if t.Max < 0 {
		src.fail(at("max"), "%d: want a number of transfers, or 0 for 20", t.Max)
	}
	if t.Source.IsValid() && (t.Source.IsUnspecified() || t.Source.IsMulticast()) {
		src.fail(at("source"), "%s is no address to speak from", t.Source)
	}
	if l := &t.TLS; (len(l.Listen) > 0) != (l.Cert != "") || (l.Cert == "") != (l.Key == "") {
		src.fail(at("tls"), "want listen, cert and key, all of them")
	}
	for i, a := range t.TLS.Listen {
		if !a.IsValid() || a.Port() == 0 || slices.Contains(t.TLS.Listen[:i], a) || slices.Contains(n.Listen.Top, a) || slices.Contains(n.Listen.Low, a) {
			src.fail([]string{"transfers", "tls", "listen"}, "%s stands twice, or is not ADDRESS:PORT", a)
		}
	}
}

// transferFile says who may copy a zone, and who is told of a change.
type transferFile struct {
	Allow     []netip.Prefix   `yaml:"allow"`
	Keys      []string         `yaml:"keys"`
	Notify    []netip.AddrPort `yaml:"notify"`
	NotifyKey string           `yaml:"notify_key"`
}

// build checks who may copy the zone: nobody is an empty selector, and everybody
// has to be written as two prefixes.
func (t *transferFile) build(d *document, at []string) *placement.Transfer {
	if t == nil {
		return nil
	}
	if len(t.Allow) == 0 && len(t.Keys) == 0 {
		d.refuse(placement.RuleEmptySelector, at, "names neither allow nor keys: nobody could copy the zone")
	}
	for _, p := range t.Allow {
		if !p.IsValid() || p != p.Masked() {
			d.fail(append(at, "allow"), "%s is not a prefix: bits are set behind its length", p)
		}
	}
	for _, a := range t.Notify {
		if !usable(a) {
			d.fail(append(at, "notify"), "%s is not the ADDRESS:PORT of a secondary", a)
		}
	}
	out := &placement.Transfer{Allow: t.Allow, Notify: t.Notify}
	for _, k := range t.Keys {
		out.Keys = append(out.Keys, keyName(d, append(at, "keys"), k))
	}
	if t.NotifyKey != "" {
		out.NotifyKey = keyName(d, append(at, "notify_key"), t.NotifyKey)
	}
	return out
}

// secondaryFile says where a zone is copied from.
type secondaryFile struct {
	Primaries   []netip.AddrPort `yaml:"primaries"`
	Key         string           `yaml:"key"`
	TLS         string           `yaml:"tls"`
	AllowShrink bool             `yaml:"allow_shrink"`
}

// build checks where the zone is copied from.
func (s *secondaryFile) build(d *document, at []string) *placement.Secondary {
	if s == nil {
		return nil
	}
	if len(s.Primaries) == 0 {
		d.refuse(placement.RuleEmptySelector, append(at, "primaries"), "names no primary")
	}
	for i, a := range s.Primaries {
		if !usable(a) || slices.Contains(s.Primaries[:i], a) {
			d.fail(append(at, "primaries"), "%s stands twice, or is not the ADDRESS:PORT of a primary", a)
		}
	}
	out := &placement.Secondary{Primaries: s.Primaries, TLS: s.TLS, AllowShrink: s.AllowShrink}
	if s.Key != "" {
		out.Key = keyName(d, append(at, "key"), s.Key)
	}
	return out
}

// keyName is the name of a key as nodes look it up.
func keyName(d *document, at []string, name string) string {
	out := fqdn(name)
	if len(name) == 0 || len(out) > 254 || out == "." {
		d.fail(at, "%q is not the name of a key", name)
	}
	return out
}
