package placement

import "encoding/base64"

// OtherKey is a key of another provider that signs a zone of ours with keys of its own
// (RFC 8901 section 2.1.2). What it has signed is believed beside what we sign, as long as
// the DNSKEY RRsets of both have it.
type OtherKey struct {
	// Name is the operator's for it.
	Name      string `json:"name"`
	Flags     uint16 `json:"flags"`
	Algorithm uint8  `json:"algorithm"`
	// Public is the key in base64, without blanks.
	Public string `json:"public"`
	// CDS asks the parent to know the key as well as ours.
	CDS bool `json:"cds,omitempty"`
}

// Tag is the key tag (RFC 4034 appendix B).
func (k *OtherKey) Tag() uint16 {
	public, _ := base64.StdEncoding.DecodeString(k.Public) // what is no base64 has no tag
	rdata := append([]byte{byte(k.Flags >> 8), byte(k.Flags), dnssecProtocol, k.Algorithm}, public...)
	var sum uint32
	for i, b := range rdata {
		if i%2 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	return uint16(sum + sum>>16)
}

// dnssecProtocol is the one value of the field (RFC 4034 section 2.1.2).
const dnssecProtocol = 3
