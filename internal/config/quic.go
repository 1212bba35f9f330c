package config

import (
	"encoding/hex"
	"slices"
	"strings"

	"rhumb/placement"
)

// quicFile says how the sessions of a service that speak QUIC are kept alive.
type quicFile struct {
	Owner placement.QUICOwner `yaml:"owner"`
}

// checkQUIC checks a service's QUIC by itself.
func (d *document) checkQUIC(at []string, e *edgeFile) {
	at = append(slices.Clone(at), "quic")
	if e.Kind != placement.Forward {
		d.fail(at, "our own server speaks no QUIC: kind forward only")
	}
	if o := e.QUIC.Owner; o != placement.QUICByFlow && o != placement.QUICByID {
		d.fail(append(at, "owner"), "%q: want flow or cid", o)
	}
}

// referQUIC checks that every site whose connection ids shall name it has an id,
// and that no two can be taken for each other.
func (b *builder) referQUIC(d *document, at []string, s *placement.Service) {
	if s.Edge == nil || s.Edge.QUIC != placement.QUICByID {
		return
	}
	at = append(slices.Clone(at), "edge", "quic", "owner")
	owners, size := make(map[string]string), 0
	var members []placement.Member
	for i := range b.out.Sites {
		members = append(members, b.out.Sites[i].Members()...)
	}
	for _, site := range members {
		id, err := hex.DecodeString(site.QUICID)
		if size == 0 {
			size = len(id)
		}
		switch other := owners[string(id)]; {
		case err != nil || len(id) < 1 || len(id) > 15:
			d.fail(at, "cid needs %s: 1 to 15 octets in hexadecimal digits, have %q", quicIDKey(site), site.QUICID)
		case len(id) != size:
			d.fail(at, "quic_id of %s has %d octets, those of others %d", site.Name, len(id), size)
		case other != "":
			d.fail(at, "%s and %s have the same quic_id", other, site.Name)
		}
		owners[string(id)] = site.Name
	}
}

// quicIDKey is where the id of an edge stands.
func quicIDKey(m placement.Member) string {
	if node, ok := strings.CutPrefix(m.Name, m.Site+"/"); ok {
		return "sites." + m.Site + ".nodes." + node + ".quic_id"
	}
	return "sites." + m.Name + ".quic_id"
}
