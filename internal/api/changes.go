package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rhumb/placement"
)

// DrainRequest asks for a drain; For and Until exclude each other.
type DrainRequest struct {
	Reason   string             `json:"reason"`
	For      placement.Duration `json:"for,omitempty"`
	Until    time.Time          `json:"until,omitzero"`
	Return   string             `json:"return,omitempty"` // "auto" or nothing
	Override []string           `json:"override,omitempty"`
	DryRun   bool               `json:"dry_run,omitempty"`
}

// ForceRequest sets or ends the operator's word on a site or one of its clusters.
type ForceRequest struct {
	Cluster  string   `json:"cluster,omitempty"` // empty: the whole site
	State    string   `json:"state"`             // up, down, auto
	Reason   string   `json:"reason"`
	Override []string `json:"override,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
}

// DialRequest limits the share of a site, or of one of its clusters; 100 ends the limit.
type DialRequest struct {
	Cluster  string   `json:"cluster,omitempty"` // empty: the whole site
	Percent  float64  `json:"percent"`
	Reason   string   `json:"reason"`
	Override []string `json:"override,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
}

// PinRequest holds a site at a plan revision; 0 releases it.
type PinRequest struct {
	Revision int64  `json:"revision"`
	Reason   string `json:"reason,omitempty"`
}

// ReasonRequest carries nothing but why.
type ReasonRequest struct {
	Reason string `json:"reason"`
}

// needReason: a change without a reason is a riddle for the next shift.
func needReason(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return fmt.Errorf("%w: give a reason; it is what the next shift will read", ErrInvalid)
	}
	return nil
}

// site returns the path's site if the fleet has it.
func (s *Server) site(r *http.Request) (string, error) {
	name := r.PathValue("site")
	if s.stateInventory().Site(name) == nil {
		return "", fmt.Errorf("site %s: %w", name, ErrNotFound)
	}
	return name, nil
}

// edge names a site, or a node of one that has several edges.
func (s *Server) edge(r *http.Request) (string, error) {
	if _, ok := s.stateInventory().Node(r.PathValue("site")); ok {
		return r.PathValue("site"), nil
	}
	return s.site(r)
}

// change runs one Op and keeps count and log of it: who, what, why, and what came out.
func (s *Server) change(r *http.Request, verb, object, reason string, do func(who string) (Outcome, error)) (any, error) {
	who := callerOf(r.Context()).who
	out, err := do(who)
	result := "ok"
	switch {
	case len(refusals(err)) > 0:
		result = "refused"
	case err != nil:
		result = "failed"
	case out.DryRun:
		result = "dry-run"
	}
	s.metrics.actions.WithLabelValues(verb, result).Inc()
	s.log.Info("change", "verb", verb, "object", object, "who", who, "reason", reason, "result", result,
		"from", r.RemoteAddr, "revision", out.Revision, "err", err)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", verb, object, err)
	}
	s.Notify()
	return out, nil
}

func (s *Server) postDrain(r *http.Request) (any, error) {
	site, err := s.edge(r)
	var req DrainRequest
	if err := errors.Join(err, decode(r, &req)); err != nil {
		return nil, err
	}
	d := placement.Drain{Site: site, Return: req.Return}
	audit(&d.Audit, callerOf(r.Context()).who, s.clock())
	d.Reason, d.Until, d.Override = req.Reason, req.Until, req.Override
	if req.For > 0 {
		d.Until = d.Since.Add(req.For.D())
	}
	if err := req.check(&d); err != nil {
		return nil, fmt.Errorf("drain of %s: %w", site, err)
	}
	if s.cfg.Ops.Drainer == nil {
		return nil, fmt.Errorf("drain of %s: %w", site, ErrNotHere)
	}
	return s.change(r, "drain", site, req.Reason, func(string) (Outcome, error) {
		return s.cfg.Ops.Drainer.Drain(r.Context(), d, req.DryRun)
	})
}

func (req *DrainRequest) check(d *placement.Drain) error {
	switch {
	case req.For > 0 && !req.Until.IsZero():
		return fmt.Errorf("%w: for and until exclude each other", ErrInvalid)
	case !d.Until.IsZero() && !d.Until.After(d.Since):
		return fmt.Errorf("%w: until %s is in the past", ErrInvalid, d.Until.Format(time.RFC3339))
	case req.Return != "" && req.Return != "auto":
		return fmt.Errorf("%w: return %q is not auto", ErrInvalid, req.Return)
	case req.Return == "auto" && d.Until.IsZero():
		return fmt.Errorf("%w: return auto needs a time, for or until", ErrInvalid)
	case req.Return == "auto" && d.OfNode():
		return fmt.Errorf("%w: a node does not return by itself", ErrInvalid)
	}
	if err := needReason(req.Reason); err != nil {
		return err
	}
	return knownRules(req.Override)
}

// knownRules: an override of a rule that does not exist, or that nobody may set
// aside, is a mistake to tell at once.
func knownRules(names []string) error {
	for _, name := range names {
		ok := false
		for _, rule := range placement.Rules() {
			ok = ok || string(rule.Name) == name && rule.Override
		}
		if !ok {
			return fmt.Errorf("%w: no rule %q can be overridden; see rhumb help rules", ErrInvalid, name)
		}
	}
	return nil
}

func (s *Server) postUndrain(r *http.Request) (any, error) {
	site, err := s.edge(r)
	var req Undrain
	if err := errors.Join(err, decode(r, &req)); err != nil {
		return nil, err
	}
	req.Site = site
	if s.cfg.Ops.Drainer == nil {
		return nil, fmt.Errorf("undrain of %s: %w", site, ErrNotHere)
	}
	return s.change(r, "undrain", site, req.Reason, func(who string) (Outcome, error) {
		req.Who = who
		return s.cfg.Ops.Drainer.Undrain(r.Context(), req)
	})
}

func (s *Server) postForce(r *http.Request) (any, error) {
	site, err := s.site(r)
	var req ForceRequest
	if err := errors.Join(err, decode(r, &req)); err != nil {
		return nil, err
	}
	f := placement.Force{Object: placement.SiteID(site)}
	if req.Cluster != "" {
		f.Object.Name = req.Cluster
		if s.stateInventory().Cluster(f.Object) == nil {
			return nil, fmt.Errorf("force: cluster %s: %w", f.Object, ErrNotFound)
		}
	}
	switch req.State {
	case "up", "down":
		f.State, err = placement.ForceState(req.State), needReason(req.Reason)
	case "auto":
	default:
		err = fmt.Errorf("%w: state %q is none of up, down, auto", ErrInvalid, req.State)
	}
	if err = errors.Join(err, knownRules(req.Override)); err != nil {
		return nil, fmt.Errorf("force of %s: %w", f.Object, err)
	}
	audit(&f.Audit, callerOf(r.Context()).who, s.clock())
	f.Reason, f.Override = req.Reason, req.Override
	if s.cfg.Ops.Setter == nil {
		return nil, fmt.Errorf("force of %s: %w", f.Object, ErrNotHere)
	}
	return s.change(r, "force", f.Object.String(), req.Reason, func(string) (Outcome, error) {
		return s.cfg.Ops.Setter.Force(r.Context(), f, req.DryRun)
	})
}

func (s *Server) postDial(r *http.Request) (any, error) {
	object, err := s.site(r)
	var req DialRequest
	if err := errors.Join(err, decode(r, &req)); err != nil {
		return nil, err
	}
	if req.Cluster != "" {
		id := placement.ClusterID{Site: object, Name: req.Cluster}
		if object = id.String(); s.stateInventory().Cluster(id) == nil {
			return nil, fmt.Errorf("dial: cluster %s: %w", id, ErrNotFound)
		}
	}
	if req.Percent < 0 || req.Percent > 100 {
		return nil, fmt.Errorf("dial of %s: %w: %g %% is not within 0 and 100", object, ErrInvalid, req.Percent)
	}
	if err := errors.Join(needReason(req.Reason), knownRules(req.Override)); err != nil {
		return nil, fmt.Errorf("dial of %s: %w", object, err)
	}
	d := placement.Dial{Site: object, PerMille: int(req.Percent*10 + 0.5)}
	audit(&d.Audit, callerOf(r.Context()).who, s.clock())
	d.Reason, d.Override = req.Reason, req.Override
	if s.cfg.Ops.Setter == nil {
		return nil, fmt.Errorf("dial of %s: %w", object, ErrNotHere)
	}
	return s.change(r, "dial", object, req.Reason, func(string) (Outcome, error) {
		return s.cfg.Ops.Setter.Dial(r.Context(), d, req.DryRun)
	})
}

func (s *Server) putPin(r *http.Request) (any, error) {
	site, err := s.site(r)
	var req PinRequest
	if err := errors.Join(err, decode(r, &req)); err != nil {
		return nil, err
	}
	if req.Revision < 0 {
		return nil, fmt.Errorf("pin of %s: %w: revision %d", site, ErrInvalid, req.Revision)
	}
	p := placement.Pin{Site: site, Revision: req.Revision}
	audit(&p.Audit, callerOf(r.Context()).who, s.clock())
	p.Reason = req.Reason
	if s.cfg.Ops.Setter == nil {
		return nil, fmt.Errorf("pin of %s: %w", site, ErrNotHere)
	}
	return s.change(r, "pin", site, req.Reason, func(string) (Outcome, error) {
		return s.cfg.Ops.Setter.Pin(r.Context(), p)
	})
}

func (s *Server) postFreeze(r *http.Request) (any, error) {
	var req ReasonRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if err := needReason(req.Reason); err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	var f placement.Freeze
	audit(&f.Audit, callerOf(r.Context()).who, s.clock())
	f.Reason = req.Reason
	if s.cfg.Ops.Freezer == nil {
		return nil, fmt.Errorf("freeze: %w", ErrNotHere)
	}
	return s.change(r, "freeze", "the fleet", req.Reason, func(string) (Outcome, error) {
		return s.cfg.Ops.Freezer.Freeze(r.Context(), f)
	})
}

func (s *Server) postThaw(r *http.Request) (any, error) {
	if s.cfg.Ops.Freezer == nil {
		return nil, fmt.Errorf("thaw: %w", ErrNotHere)
	}
	return s.change(r, "thaw", "the fleet", "", func(who string) (Outcome, error) {
		return s.cfg.Ops.Freezer.Thaw(r.Context(), who)
	})
}

func (s *Server) postFreeSlot(r *http.Request) (any, error) {
	var req FreeSlot
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	object := fmt.Sprintf("slot %d of %s", req.Number, req.Prefix)
	if err := needReason(req.Reason); err != nil {
		return nil, fmt.Errorf("%s: %w", object, err)
	}
	if s.stateInventory().Prefix(req.Prefix) == nil {
		return nil, fmt.Errorf("prefix %s: %w", req.Prefix, ErrNotFound)
	}
	if s.cfg.Ops.Slots == nil {
		return nil, fmt.Errorf("%s: %w", object, ErrNotHere)
	}
	return s.change(r, "free-slot", object, req.Reason, func(who string) (Outcome, error) {
		req.Who = who
		return s.cfg.Ops.Slots.FreeSlot(r.Context(), req)
	})
}

func (s *Server) postCheck(r *http.Request) (any, error) {
	return s.apply(r, true)
}

func (s *Server) putConfig(r *http.Request) (any, error) {
	return s.apply(r, r.URL.Query().Get("dry_run") == "true")
}

func (s *Server) apply(r *http.Request, dryRun bool) (any, error) {
	var req ApplyRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if err := knownRules(req.Override); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	if len(req.Override) > 0 && strings.TrimSpace(req.Note) == "" {
		return nil, fmt.Errorf("apply: %w: a rule is set aside with a reason only; say why in the note", ErrInvalid)
	}
	if match := strings.Trim(r.Header.Get("If-Match"), `"`); match != "" {
		rev, err := strconv.ParseInt(match, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("apply: %w: If-Match %q is no revision", ErrInvalid, match)
		}
		req.Expect = rev
	}
	if s.cfg.Ops.Applier == nil {
		return nil, fmt.Errorf("apply: %w", ErrNotHere)
	}
	req.DryRun = req.DryRun || dryRun
	return s.applied(r, "apply", req)
}

// applied hands a fleet to the Applier, in the caller's name.
func (s *Server) applied(r *http.Request, verb string, req ApplyRequest) (any, error) {
	req.Who = callerOf(r.Context()).who
	if req.DryRun {
		return s.cfg.Ops.Applier.Apply(r.Context(), req)
	}
	var res ApplyResult
	_, err := s.change(r, verb, "the fleet", req.Note, func(string) (Outcome, error) {
		var err error
		res, err = s.cfg.Ops.Applier.Apply(r.Context(), req)
		return Outcome{Revision: res.Revision}, err
	})
	return res, err
}
