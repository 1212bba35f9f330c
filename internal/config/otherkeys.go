package config

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"rhumb/placement"
)

// otherKeyFile is a key of another provider of a zone (RFC 8901), as a DNSKEY record has
// it behind its type, or the whole record.
type otherKeyFile struct {
	DNSKEY string `yaml:"dnskey"`
	CDS    bool   `yaml:"cds"`
}

// otherKeys takes the keys of a zone's other providers. What ours are is known on the
// nodes alone, and compared there.
func (d *document) otherKeys(at []string, out *placement.Zone, list map[string]otherKeyFile) {
	if len(list) > 0 && out.DNSSEC == "" {
		d.fail(at, "dnssec is off: other providers' keys stand beside ours (RFC 8901), want dnssec: on")
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		at := append(slices.Clone(at), name)
		k, err := readDNSKEY(out.Name, list[name].DNSKEY)
		if err != nil {
			d.fail(append(at, "dnskey"), "%v", err)
			continue
		}
		k.Name, k.CDS = name, list[name].CDS
		if k.CDS && k.Flags&flagSEP == 0 {
			d.fail(append(at, "cds"), "the parent knows keys with flags 257 alone, and this one has %d", k.Flags)
		}
		for i := range out.OtherKeys {
			if o := &out.OtherKeys[i]; o.Algorithm == k.Algorithm && o.Tag() == k.Tag() {
				d.fail(append(at, "dnskey"), "has the tag %d and the algorithm of %s", k.Tag(), o.Name)
			}
		}
		out.OtherKeys = append(out.OtherKeys, k)
	}
}

// The flags of keys (RFC 4034 section 2.1.1). A revoked one (RFC 5011) is none to believe.
const (
	flagZone = 256
	flagSEP  = 1
)

// keyOctets is how long a key is of an algorithm that we sign with (RFC 6605, RFC 8080);
// 0 for others.
func keyOctets(algorithm uint64) int {
	switch algorithm {
	case 13:
		return 64
	case 15:
		return 32
	}
	return 0
}

// readDNSKEY reads flags, protocol, algorithm and key. A whole record of the zone is as
// good, since that is what tools print.
func readDNSKEY(zone, text string) (k placement.OtherKey, err error) {
	fields := strings.Fields(text)
	if i := slices.IndexFunc(fields, func(f string) bool { return strings.EqualFold(f, "DNSKEY") }); i > 0 {
		if fqdn(fields[0]) != zone {
			return k, fmt.Errorf("is a key of %s", fields[0])
		}
		fields = fields[i+1:]
	}
	if len(fields) < 4 {
		return k, errors.New(`want "FLAGS PROTOCOL ALGORITHM KEY", as in "256 3 13 GojIhhXUN/u4…"`)
	}
	var n [3]uint64
	for i, what := range []string{"flags", "protocol", "algorithm"} {
		if n[i], err = strconv.ParseUint(fields[i], 10, 16); err != nil {
			return k, fmt.Errorf("%s %q: want a number", what, fields[i])
		}
	}
	octets := keyOctets(n[2])
	public, err := base64.StdEncoding.DecodeString(strings.Join(fields[3:], ""))
	switch {
	case n[0]&^flagSEP != flagZone:
		return k, fmt.Errorf("flags %d: want 256 (ZSK) or 257 (KSK)", n[0])
	case n[1] != 3:
		return k, fmt.Errorf("protocol %d: want 3 (RFC 4034, 2.1.2)", n[1])
	case octets == 0:
		return k, fmt.Errorf("algorithm %d: all providers sign with the same ones (RFC 8901, 4), and we do with 13 (ECDSA P-256) and 15 (Ed25519)", n[2])
	case err != nil:
		return k, fmt.Errorf("the key is not base64: %w", err)
	case len(public) != octets:
		return k, fmt.Errorf("the key has %d octets, and one of algorithm %d has %d", len(public), n[2], octets)
	case n[2] == 13 && !onP256(public):
		return k, errors.New("the key is no point of the curve P-256")
	}
	return placement.OtherKey{Flags: uint16(n[0]), Algorithm: uint8(n[2]), Public: base64.StdEncoding.EncodeToString(public)}, nil
}

// onP256 tells whether X and Y, as a DNSKEY has them (RFC 6605 section 4), are a point.
func onP256(public []byte) bool {
	_, err := ecdh.P256().NewPublicKey(append([]byte{4}, public...)) // uncompressed
	return err == nil
}
