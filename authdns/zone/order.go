package zone

import (
	"crypto/sha1"

	"github.com/miekg/dns"
)

// orderKey turns a name into a string by which names compare as RFC 4034 section
// 6.1 orders them: label by label from the right, octet by octet, a shorter name
// before those below it. The octet 0 parts labels, so 0 and 1 within one are
// written as two octets that sort as they do.
func orderKey(name string) string {
	wire := wireName(name)
	var starts [128]int
	labels := 0
	for off := 0; off < len(wire) && wire[off] != 0; off += 1 + int(wire[off]) {
		starts[labels] = off
		labels++
	}
	key := make([]byte, 0, len(wire)+8)
	for i := labels - 1; i >= 0; i-- {
		at := starts[i]
		for _, c := range wire[at+1 : at+1+int(wire[at])] {
			if c <= 1 {
				key = append(key, 1, c+1)
				continue
			}
			key = append(key, c)
		}
		key = append(key, 0)
	}
	return string(key)
}

// wireName is a canonical name without compression; nil where it is none.
func wireName(name string) []byte {
	buf := make([]byte, 255)
	n, err := dns.PackDomainName(name, buf, 0, nil, false)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// hashing is how names of a zone are hashed (RFC 5155 section 5). SHA-1 is the
// only algorithm there is.
type hashing struct {
	iterations uint16
	salt       string // as octets
}

// of hashes a canonical name.
func (h hashing) of(name string) string {
	sum := sha1.Sum(append(wireName(name), h.salt...))
	buf := make([]byte, 0, len(sum)+len(h.salt))
	for range h.iterations {
		buf = append(append(buf[:0], sum[:]...), h.salt...)
		sum = sha1.Sum(buf)
	}
	return string(sum[:])
}
