package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"rhumb/authdns/zone"
	"rhumb/internal/api"
	"rhumb/placement"
)

// delegation reads the zone's file for what its parent must hold: the NS set of the
// apex, and addresses of those name servers which lie in the zone, since nobody
// could find them without (RFC 1034, 4.2.1). Where the parent is a zone of this
// fleet it is looked at as well.
func (u *unit) delegation(ctx context.Context, name string) (*api.Delegation, error) {
	inv := u.views.view().Inventory
	meta := zoneNamed(inv, name)
	if meta == nil {
		return nil, fmt.Errorf("%w: no such zone in the fleet", api.ErrNotFound)
	}
	z, err := u.zoneOf(ctx, meta)
	if err != nil {
		return nil, err
	}
	d := &api.Delegation{Zone: name}
	d.Records, d.Problems = delegationOf(z)
	parent := parentOf(inv, name)
	if parent == nil {
		return d, nil
	}
	d.Parent, d.Made = parent.Name, meta.NameServers != ""
	if d.Made {
		return d, nil
	}
	p, err := u.zoneOf(ctx, parent)
	if err != nil {
		return nil, err
	}
	d.Problems = append(d.Problems, heldOtherwise(p, d)...)
	return d, nil
}

// zoneOf reads a zone of the fleet from the store.
func (u *unit) zoneOf(ctx context.Context, meta *placement.Zone) (*zone.Zone, error) {
	if meta.Secondary != nil {
		return nil, fmt.Errorf("%w: zone %s is copied from its primaries, and this unit may not hold it", api.ErrNotFound, meta.Name)
	}
	if meta.Catalog != nil {
		return nil, fmt.Errorf("%w: zone %s lists zones, and is delegated by nobody", api.ErrNotFound, meta.Name)
	}
	data, err := u.store.Blob(ctx, meta.SHA256)
	if err != nil {
		return nil, storeError(fmt.Errorf("zone %s: %w", meta.Name, err))
	}
	return zone.Parse(meta.Name, meta.Name, bytes.NewReader(data))
}

func zoneNamed(inv *placement.Inventory, name string) *placement.Zone {
	if inv == nil {
		return nil
	}
	i := slices.IndexFunc(inv.Zones, func(z placement.Zone) bool { return z.Name == name })
	if i < 0 {
		return nil
	}
	return &inv.Zones[i]
}

// parentOf is the zone of the fleet that encloses another most closely.
func parentOf(inv *placement.Inventory, name string) (parent *placement.Zone) {
	for i := range inv.Zones {
		z := &inv.Zones[i]
		if z.Name != name && dns.IsSubDomain(z.Name, name) && (parent == nil || len(z.Name) > len(parent.Name)) {
			parent = z
		}
	}
	return parent
}

// delegationOf takes NS set and glue from a zone, in order of name, and names what
// would leave a resolver without an address.
func delegationOf(z *zone.Zone) (records []api.DelegationRecord, problems []string) {
	var glue []api.DelegationRecord
	ns := z.RRset(z.Origin, dns.TypeNS)
	for _, rr := range ns {
		records = append(records, recordOf(rr))
		target := zone.Canonical(rr.(*dns.NS).Ns)
		if !dns.IsSubDomain(z.Origin, target) {
			continue // its own zone has its addresses
		}
		before := len(glue)
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, a := range z.RRset(target, t) {
				glue = append(glue, recordOf(a))
			}
		}
		if len(glue) == before {
			problems = append(problems, target+" has no address in the zone")
		}
	}
	if len(ns) < 2 {
		problems = append(problems, fmt.Sprintf("%d name server: a registry wants two (RFC 1034, 4.1), and so do resolvers when one dies", len(ns)))
	}
	byName := func(a, b api.DelegationRecord) int { return strings.Compare(a.Line(), b.Line()) }
	slices.SortFunc(records, byName)
	slices.SortFunc(glue, byName)
	return append(records, glue...), problems
}

func recordOf(rr dns.RR) api.DelegationRecord {
	h := rr.Header()
	return api.DelegationRecord{Name: zone.Canonical(h.Name), TTL: h.Ttl, Type: dns.TypeToString[h.Rrtype],
		Data: strings.TrimPrefix(rr.String(), h.String())}
}

// heldOtherwise compares with what a parent of this fleet holds; a TTL is its own
// affair.
func heldOtherwise(parent *zone.Zone, d *api.Delegation) (out []string) {
	have := make(map[string]bool)
	owners := map[string]bool{d.Zone: true}
	for _, r := range d.Records {
		owners[r.Name] = true
	}
	for owner := range owners {
		for _, t := range []uint16{dns.TypeNS, dns.TypeA, dns.TypeAAAA} {
			if (t == dns.TypeNS) != (owner == d.Zone) {
				continue
			}
			for _, rr := range parent.RRset(owner, t) {
				r := recordOf(rr)
				r.TTL = 0
				have[r.Line()] = true
			}
		}
	}
	for _, r := range d.Records {
		r.TTL = 0
		if !have[r.Line()] {
			out = append(out, fmt.Sprintf("the zone file of %s lacks: %s %s %s", parent.Origin, r.Name, r.Type, r.Data))
		}
		delete(have, r.Line())
	}
	for _, line := range sortedKeys(have) {
		f := strings.Fields(line) // name, TTL, class, type, data
		out = append(out, fmt.Sprintf("the zone file of %s has, and the zone itself has not: %s %s", parent.Origin, f[0], strings.Join(f[3:], " ")))
	}
	return out
}

func (a *app) delegationCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "delegation ZONE",
		Short:   "The NS and glue records that the zone's parent must hold",
		Example: "  rhumb zones delegation cdn.demo.test",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			var d api.Delegation
			raw, err := c.get(cmd.Context(), "/zones/"+url.PathEscape(names[0])+"/delegation", &d)
			if err != nil {
				return err
			}
			if err := a.show(result{raw: raw, names: []string{d.Zone}, text: func(w io.Writer, s style) { writeDelegation(w, &d) }}); err != nil {
				return err
			}
			if len(d.Problems) > 0 {
				return &exitError{code: exitUnhealthy, err: fmt.Errorf("the delegation of %s has %d problems", d.Zone, len(d.Problems)), quiet: true}
			}
			return nil
		},
	}
}

// writeDelegation writes a piece of a master file; what is for people is a comment.
func writeDelegation(w io.Writer, d *api.Delegation) {
	switch {
	case d.Made:
		fmt.Fprintf(w, "; %s of this fleet makes NS and glue of %s for each resolver: nothing has to be written there.\n; These are the records of last resort.\n", d.Parent, d.Zone)
	case d.Parent != "":
		fmt.Fprintf(w, "; to stand in the zone file of %s, which this fleet serves\n", d.Parent)
	default:
		fmt.Fprintf(w, "; to stand in the zone above %s, which this fleet does not serve\n", d.Zone)
	}
	for _, r := range d.Records {
		fmt.Fprintln(w, oneLine(r.Line()))
	}
	for _, p := range d.Problems {
		fmt.Fprintln(w, "; problem:", oneLine(p))
	}
}
