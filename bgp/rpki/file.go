package rpki

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxVRPs bounds a table: twenty times what the Internet has today.
const maxVRPs = 10_000_000

// errTooMany says that the data cannot be what they pretend to be.
var errTooMany = errors.New("more VRPs than the Internet could have")

// ReadFile reads a validator's JSON file.
func ReadFile(path string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("rpki: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("rpki: %w", err)
	}
	t, err := decode(bufio.NewReaderSize(f, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("rpki: %s: %w", path, err)
	}
	if t.At.IsZero() {
		t.At = info.ModTime()
	}
	return t, nil
}

// roa is a line as validators write it; the number of the AS comes as 64500 from
// rpki-client, as "AS64500" from Routinator.
type roa struct {
	ASN       asn          `json:"asn"`
	Prefix    netip.Prefix `json:"prefix"`
	MaxLength *int         `json:"maxLength"` // absent: the prefix's own
}

type asn uint32

// UnmarshalJSON reads both spellings.
func (a *asn) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if len(text) > 2 && strings.EqualFold(text[:2], "AS") {
		text = text[2:]
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("%s is no AS number", b)
	}
	*a = asn(n)
	return nil
}

// metadata says when the data were made, in one of three spellings.
type metadata struct {
	Buildtime     time.Time `json:"buildtime"`     // rpki-client
	GeneratedTime time.Time `json:"generatedTime"` // Routinator
	Generated     int64     `json:"generated"`     // Routinator and others, seconds
}

func (m metadata) at() time.Time {
	switch {
	case !m.Buildtime.IsZero():
		return m.Buildtime
	case !m.GeneratedTime.IsZero():
		return m.GeneratedTime
	case m.Generated > 0:
		return time.Unix(m.Generated, 0)
	}
	return time.Time{}
}

// decode reads the document as a stream: it has half a million lines. One that is
// wrong makes the whole wrong, since a file cut short would turn valid into invalid
// where an AS has two lines.
func decode(r io.Reader) (*Table, error) {
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, err
	}
	var vrps []VRP
	var m metadata
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch key {
		case "roas":
			found = true
			vrps, err = decodeROAs(d, vrps)
		case "metadata":
			err = d.Decode(&m)
		default:
			var skip json.RawMessage
			err = d.Decode(&skip)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return nil, err
	}
	if !found {
		return nil, errors.New(`no list "roas"`)
	}
	return NewTable(vrps, m.at()), nil
}

func decodeROAs(d *json.Decoder, out []VRP) ([]VRP, error) {
	if err := expect(d, json.Delim('[')); err != nil {
		return nil, err
	}
	for d.More() {
		var r roa
		if err := d.Decode(&r); err != nil {
			return nil, err
		}
		v := VRP{Prefix: r.Prefix, ASN: uint32(r.ASN), MaxLength: uint8(max(r.Prefix.Bits(), 0))}
		if r.MaxLength != nil {
			if *r.MaxLength < 0 || *r.MaxLength > 128 {
				return nil, fmt.Errorf("%s: maxLength %d", r.Prefix, *r.MaxLength)
			}
			v.MaxLength = uint8(*r.MaxLength)
		}
		if !v.valid() {
			return nil, fmt.Errorf("%s cannot be", v)
		}
		if out = append(out, v); len(out) > maxVRPs {
			return nil, errTooMany
		}
	}
	return out, expect(d, json.Delim(']'))
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%v where %v should be", got, want)
	}
	return nil
}
