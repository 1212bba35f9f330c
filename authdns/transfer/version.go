package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// version is what came of asking a primary, checked.
type version struct {
	kind  Kind // KindNone: what is held is the newest
	soa   *dns.SOA
	text  []byte
	names []string
}

// fetch asks a primary and checks what it sends. It changes nothing.
func (z *copied) fetch(ctx context.Context, addr netip.AddrPort) (*version, error) {
	p, err := z.primary(addr)
	if err != nil {
		return nil, err
	}
	in, err := p.fetch(ctx, z.want.Name, z.soa)
	if err != nil {
		return nil, err
	}
	if z.soa != nil && !later(in.soa.Serial, z.soa.Serial) {
		if in.soa.Serial != z.soa.Serial {
			return nil, fmt.Errorf("has serial %d, older than %d which is held", in.soa.Serial, z.soa.Serial)
		}
		return &version{kind: KindNone, soa: z.soa}, nil
	}
	v, err := z.build(in)
	var wrong *misfit
	if errors.As(err, &wrong) {
		// The difference does not fit to what is held: the whole zone will.
		if in, err = p.whole(ctx, z.want.Name, err); err == nil {
			v, err = z.build(in)
		}
	}
	return v, err
}

// misfit is a difference that cannot be applied.
type misfit struct{ err error }

func (m *misfit) Error() string { return m.err.Error() }

// build makes a version of what came, and judges it.
func (z *copied) build(in *incoming) (*version, error) {
	c := newContents(in.soa, in.whole)
	if in.deltas != nil {
		var err error
		if c, err = readContents(z.want.Name, z.held.Data); err == nil {
			err = c.apply(in.deltas)
		}
		if err != nil {
			return nil, &misfit{err}
		}
	}
	v := &version{kind: in.kind(), soa: c.soa, text: c.text()}
	var err error
	if v.names, err = z.check(v.text); err != nil {
		return nil, &refused{fmt.Errorf("serial %d is wrong: %w", v.soa.Serial, err)}
	}
	slices.Sort(v.names)
	if err := z.shrinks(v.names); err != nil {
		return nil, &refused{err}
	}
	return v, nil
}

// refused is why a version is not taken that came whole.
type refused struct{ err error }

func (r *refused) Error() string { return r.err.Error() }

// check judges a version, and returns its names. What counts of a catalog is what it lists.
func (z *copied) check(text []byte) ([]string, error) {
	names, err := z.in.c.Check(z.want.Name, text)
	if err != nil || !z.want.Catalog {
		return names, err
	}
	c, err := ReadCatalog(z.want.Name, text)
	if err != nil {
		return nil, err
	}
	return c.entries(), nil
}

// shrinks refuses a version that loses too much: a primary whose disk was full, or
// whose generator found an empty table, sends a zone which is well-formed and has
// a higher serial. Of a catalog one zone may go at any time, or get another label, as
// happens where zones are few; but it may not lose the last.
func (z *copied) shrinks(names []string) error {
	lost := 0
	for _, n := range z.names {
		if _, ok := slices.BinarySearch(names, n); !ok {
			lost++
		}
	}
	kept, what := len(z.names)-lost, "names left"
	if z.want.Catalog {
		if what = "listed zones left with their labels"; lost <= 1 && len(names) > 0 {
			return nil
		}
	}
	if float64(kept) < z.want.KeepNames*float64(len(z.names)) {
		return fmt.Errorf("%d of %d %s, want %.0f %%: the version is not taken (rule shrink; allow_shrink lets it pass)",
			kept, len(z.names), what, 100*z.want.KeepNames)
	}
	return nil
}

// primary makes the client of an address.
func (z *copied) primary(addr netip.AddrPort) (*primary, error) {
	p := &primary{addr: addr, source: z.in.c.Source, now: z.in.c.Now, connect: z.in.c.Connect}
	if z.want.Key != "" {
		if p.key = z.in.c.Keys.Find(z.want.Key); p.key == nil {
			return nil, fmt.Errorf("no key %s on this node", z.want.Key)
		}
	}
	if z.want.TLS != "" {
		p.tls = &tls.Config{}
		if z.in.c.TLS != nil {
			p.tls = z.in.c.TLS.Clone()
		}
		p.tls.ServerName, p.tls.NextProtos, p.tls.MinVersion = z.want.TLS, []string{"dot"}, tls.VersionTLS13
	}
	return p, nil
}
