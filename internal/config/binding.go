package config

import (
	"slices"

	"rhumb/placement"
)

// bindingFile mirrors placement.Binding; empty it tells hints alone.
type bindingFile struct {
	ALPN      []string `yaml:"alpn"`
	NoDefault bool     `yaml:"no_default_alpn"`
	Port      *uint16  `yaml:"port"`
}

// build checks the binding of a service with names.
func (f *bindingFile) build(d *document, at []string, names []string) *placement.Binding {
	if f == nil {
		return nil
	}
	at = slices.Clone(at) // others append to the same
	out := &placement.Binding{ALPN: f.ALPN, NoDefault: f.NoDefault, Port: deref(f.Port, 0)}
	if len(names) == 0 {
		d.fail(at, "is of the service's names, and it has none")
	}
	for i, id := range f.ALPN {
		if id == "" || len(id) > 255 || slices.Contains(f.ALPN[:i], id) {
			d.fail(append(at, "alpn"), "%q stands twice, or is no protocol id of 1 to 255 octets (RFC 9460, 7.1.1)", id)
		}
	}
	if f.NoDefault && len(f.ALPN) == 0 {
		d.fail(append(at, "no_default_alpn"), "leaves no protocol: want alpn beside it (RFC 9460, 7.1.1)")
	}
	if f.Port != nil && *f.Port == 0 {
		d.fail(append(at, "port"), "0 is no port: leave the key out for that of the scheme")
	}
	return out
}
