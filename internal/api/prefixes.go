package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"rhumb/placement"
)

// Retirer takes prefixes off the world for good, and brings them back.
type Retirer interface {
	// Retire begins a retirement; with dryRun it says what would happen.
	Retire(ctx context.Context, r placement.Retirement, dryRun bool) (Outcome, error)
	// Restore takes the retirement of a prefix back: its sites announce it again.
	Restore(ctx context.Context, r Restore) (Outcome, error)
}

// RetireRequest asks for a retirement.
type RetireRequest struct {
	Prefix   netip.Prefix `json:"prefix"`
	Reason   string       `json:"reason"`
	Override []string     `json:"override,omitempty"`
	DryRun   bool         `json:"dry_run,omitempty"`
}

// Restore brings a retired prefix back.
type Restore struct {
	Prefix netip.Prefix `json:"prefix"`
	Who    string       `json:"who,omitempty"`
	Reason string       `json:"reason"`
}

// PrefixState is how the fleet stands to a prefix, in a word.
type PrefixState string

// The states of a prefix. A deleted one was left out of the configuration without a
// retirement: its sites hold it at gshut.
const (
	PrefixAnnounced PrefixState = "announced"
	PrefixSilent    PrefixState = "silent"
	PrefixDeleted   PrefixState = "deleted"
	PrefixRetiring  PrefixState = "retiring"
	PrefixRetired   PrefixState = "retired"
)

// Prefix is an anycast prefix and who announces it.
type Prefix struct {
	Prefix netip.Prefix `json:"prefix"`
	State  PrefixState  `json:"state"`
	// Sites may announce it; Announcing say that they do.
	Sites      []string `json:"sites"`
	Announcing []string `json:"announcing"`
	// Retired says by whom and why.
	Retired *placement.Audit `json:"retired,omitempty"`
	// Answered are the services whose clients are still sent to an address in it.
	Answered []string `json:"answered,omitempty"`
}

// PrefixesOf lists the prefixes of the fleet, those which it does not name any more and
// which somebody announces, and those which are retired; in order of prefix.
func PrefixesOf(s State) []Prefix {
	inv := s.inventory()
	var all []netip.Prefix
	for i := range inv.Prefixes {
		all = append(all, inv.Prefixes[i].Prefix)
	}
	for _, a := range s.Announced {
		if a.Step < placement.Withdrawn {
			all = append(all, a.Prefix)
		}
	}
	for i := range inv.Retirements {
		if inv.Retirements[i].Live() {
			all = append(all, inv.Retirements[i].Prefix)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	out := []Prefix{}
	for _, p := range slices.Compact(all) {
		out = append(out, prefixOf(&s, inv, p))
	}
	return out
}

func prefixOf(s *State, inv *placement.Inventory, p netip.Prefix) Prefix {
	out := Prefix{Prefix: p, State: PrefixSilent, Sites: []string{}, Announcing: announcing(s, p), Answered: AnsweredIn(inv, p)}
	named := inv.Prefix(p)
	if named != nil {
		out.Sites = inv.AnnouncingSites(named)
	}
	if r := inv.Retired(p); r != nil {
		out.Retired = &r.Audit
	}
	switch loud := len(out.Announcing) > 0; {
	case out.Retired != nil && loud:
		out.State = PrefixRetiring
	case out.Retired != nil:
		out.State = PrefixRetired
	case named == nil:
		out.State = PrefixDeleted
	case loud:
		out.State = PrefixAnnounced
	}
	return out
}

// AnsweredIn lists the services that are answered with an address in a prefix.
func AnsweredIn(inv *placement.Inventory, p netip.Prefix) []string {
	var out []string
	for i := range inv.Services {
		service := &inv.Services[i]
		if e := service.Edge; e != nil && slices.ContainsFunc(e.VIPs, func(v netip.AddrPort) bool { return p.Contains(v.Addr()) }) {
			out = append(out, service.Name)
			continue
		}
		if slices.ContainsFunc(inv.Eligible(service), func(id placement.ClusterID) bool {
			return slices.ContainsFunc(inv.Cluster(id).Addresses, func(a netip.AddrPort) bool { return p.Contains(a.Addr()) })
		}) {
			out = append(out, service.Name)
		}
	}
	return out
}

func (s *Server) getPrefixes(*http.Request) (any, error) {
	st := s.cfg.State()
	return list(&st, "PrefixList", PrefixesOf(st)), nil
}

func (s *Server) postRetire(r *http.Request) (any, error) {
	var req RetireRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if err := errors.Join(needPrefix(req.Prefix), needReason(req.Reason), knownRules(req.Override)); err != nil {
		return nil, fmt.Errorf("retirement of %s: %w", req.Prefix, err)
	}
	ret := placement.Retirement{Prefix: req.Prefix}
	audit(&ret.Audit, callerOf(r.Context()).who, s.clock())
	ret.Reason, ret.Override = req.Reason, req.Override
	if s.cfg.Ops.Retirer == nil {
		return nil, fmt.Errorf("retirement of %s: %w", req.Prefix, ErrNotHere)
	}
	return s.change(r, "retire", req.Prefix.String(), req.Reason, func(string) (Outcome, error) {
		return s.cfg.Ops.Retirer.Retire(r.Context(), ret, req.DryRun)
	})
}

func (s *Server) postRestore(r *http.Request) (any, error) {
	var req Restore
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if err := errors.Join(needPrefix(req.Prefix), needReason(req.Reason)); err != nil {
		return nil, fmt.Errorf("return of %s: %w", req.Prefix, err)
	}
	if s.cfg.Ops.Retirer == nil {
		return nil, fmt.Errorf("return of %s: %w", req.Prefix, ErrNotHere)
	}
	return s.change(r, "restore", req.Prefix.String(), req.Reason, func(who string) (Outcome, error) {
		req.Who = cmp.Or(who, req.Who)
		return s.cfg.Ops.Retirer.Restore(r.Context(), req)
	})
}

// needPrefix: a net with bits set behind its length is another one than was meant.
func needPrefix(p netip.Prefix) error {
	if !p.IsValid() || p != p.Masked() {
		return fmt.Errorf("%w: %s is no prefix, as 192.0.2.0/24", ErrInvalid, p)
	}
	return nil
}
