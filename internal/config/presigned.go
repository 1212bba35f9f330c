package config

import (
	"strings"

	"rhumb/placement"
)

// presigned refuses what cannot be had of a zone that its owner has signed: signatures
// of ours beside his, and an NS set at the apex that changes with the resolver. Of a
// zone which is copied nobody knows that here; its nodes tell.
func (b *builder) presigned(d *document, at []string, out *placement.Zone, place string, z zoneFile) {
	if b.signedAt == nil {
		b.signedAt = make(map[string]string)
	}
	b.signedAt[out.Name] = place
	if out.DNSSEC != "" {
		d.fail(append(at, "dnssec"), "the zone is signed by its owner already (%s): leave dnssec off, or give the unsigned file", place)
	}
	if z.NameServers != nil {
		d.fail(append(at, "name_servers"), "the zone is signed by its owner (%s): name servers chosen per resolver cannot be signed", place)
	}
}

// closest is the zone that a name lies in, of those with a parent and a child the
// child; "" for none.
func (b *builder) closest(name string) (zone string) {
	for _, z := range b.out.Zones {
		if len(z.Name) > len(zone) && (name == z.Name || strings.HasSuffix(name, "."+z.Name)) {
			zone = z.Name
		}
	}
	return zone
}
