package rpki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The PDUs of RFC 8210, section 5.
const (
	pduSerialNotify  = 0
	pduSerialQuery   = 1
	pduResetQuery    = 2
	pduCacheResponse = 3
	pduIPv4Prefix    = 4
	pduIPv6Prefix    = 6
	pduEndOfData     = 7
	pduCacheReset    = 8
	pduRouterKey     = 9
	pduErrorReport   = 10
)

// maxPDU bounds what a cache may make us read at once; only error reports and router
// keys have no fixed length, and both are short.
const maxPDU = 1 << 16

// The versions of the protocol.
const (
	rtrV0 = 0 // RFC 6810
	rtrV1 = 1 // RFC 8210
)

// errVersion says that the cache speaks another version than it was asked in.
var errVersion = errors.New("the cache speaks another version")

// pdu is one message of a cache.
type pdu struct {
	version, kind byte
	// session of the cache; of error reports, the code.
	session uint16
	serial  uint32
	// announce is set where a prefix is added, not taken back.
	announce bool
	vrp      VRP
	// refresh, retry and expire in seconds; 0 where version 0 names none.
	refresh, retry, expire uint32
	text                   string
}

// lengths of the PDUs which have a fixed one; End of Data grew in version 1.
func fixedLength(version, kind byte) int {
	switch kind {
	case pduSerialNotify, pduSerialQuery:
		return 12
	case pduResetQuery, pduCacheResponse, pduCacheReset:
		return 8
	case pduIPv4Prefix:
		return 20
	case pduIPv6Prefix:
		return 32
	case pduEndOfData:
		if version == rtrV0 {
			return 12
		}
		return 24
	}
	return 0
}

// readPDU reads one message.
func readPDU(r io.Reader) (pdu, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return pdu{}, err
	}
	p := pdu{version: head[0], kind: head[1], session: binary.BigEndian.Uint16(head[2:])}
	length := binary.BigEndian.Uint32(head[4:])
	if p.version > rtrV1 {
		return p, fmt.Errorf("%w: %d", errVersion, p.version)
	}
	if fixed := fixedLength(p.version, p.kind); fixed != 0 && length != uint32(fixed) || length < 8 || length > maxPDU {
		return p, fmt.Errorf("PDU of type %d has %d bytes", p.kind, length)
	}
	body := make([]byte, length-8)
	if _, err := io.ReadFull(r, body); err != nil {
		return p, fmt.Errorf("PDU of type %d: %w", p.kind, err)
	}
	return p, p.parse(body)
}

// parse reads what follows the header.
func (p *pdu) parse(b []byte) error {
	u32 := binary.BigEndian.Uint32
	switch p.kind {
	case pduSerialNotify, pduSerialQuery:
		p.serial = u32(b)
	case pduEndOfData:
		p.serial = u32(b)
		if len(b) >= 16 {
			p.refresh, p.retry, p.expire = u32(b[4:]), u32(b[8:]), u32(b[12:])
		}
	case pduIPv4Prefix, pduIPv6Prefix:
		return p.parsePrefix(b)
	case pduErrorReport:
		return p.parseError(b)
	case pduResetQuery, pduCacheResponse, pduCacheReset, pduRouterKey:
	default:
		return fmt.Errorf("PDU of unknown type %d", p.kind)
	}
	return nil
}

func (p *pdu) parsePrefix(b []byte) error {
	addr, _ := netip.AddrFromSlice(b[4 : len(b)-4])
	prefix := netip.PrefixFrom(addr, int(b[1])) // invalid where the length is too long
	p.announce = b[0]&1 == 1
	p.vrp = VRP{Prefix: prefix, MaxLength: b[2], ASN: binary.BigEndian.Uint32(b[len(b)-4:])}
	if !p.vrp.valid() {
		return fmt.Errorf("prefix %s/%d-%d cannot be", addr, b[1], b[2])
	}
	return nil
}

// parseError reads a report: the PDU it is about, and a text; both may be empty.
func (p *pdu) parseError(b []byte) error {
	short := errors.New("error report is cut short")
	if len(b) < 4 {
		return short
	}
	inner := uint64(binary.BigEndian.Uint32(b))
	if uint64(len(b)) < 4+inner+4 {
		return short
	}
	b = b[4+inner:]
	n := uint64(binary.BigEndian.Uint32(b))
	if uint64(len(b)) != 4+n {
		return short
	}
	p.text = string(b[4:])
	return nil
}

// query asks for what is newer than a serial, or for everything.
func query(version byte, session uint16, serial uint32, all bool) []byte {
	if all {
		return []byte{version, pduResetQuery, 0, 0, 0, 0, 0, 8}
	}
	b := []byte{version, pduSerialQuery, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], session)
	binary.BigEndian.PutUint32(b[8:], serial)
	return b
}
