package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"rhumb/placement"
)

func (s *Server) getHistory(r *http.Request) (any, error) {
	if s.cfg.Ops.History == nil {
		return nil, fmt.Errorf("config history: %w", ErrNotHere)
	}
	all, err := s.cfg.Ops.History.Versions(r.Context())
	if err != nil {
		return nil, fmt.Errorf("config history: %w", err)
	}
	st := s.cfg.State()
	return list(&st, "ConfigVersionList", all), nil
}

func (s *Server) getConfigAt(r *http.Request) (any, error) {
	revision, err := parseRevision(r.PathValue("revision"))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return s.fleetAt(r, revision)
}

func (s *Server) getConfigDiff(r *http.Request) (any, error) {
	from, err1 := parseRevision(r.URL.Query().Get("from"))
	to, err2 := parseRevision(r.URL.Query().Get("to"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("config diff: %w", err)
	}
	old, err := s.fleetAt(r, from)
	if err != nil {
		return nil, err
	}
	next, err := s.fleetAt(r, to)
	if err != nil {
		return nil, err
	}
	return ConfigDiff{From: from, To: to, Changes: s.cfg.Ops.History.Compare(old, next)}, nil
}

// parseRevision reads a revision; nothing is 0, what is in force.
func parseRevision(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %q is no revision", ErrInvalid, text)
	}
	return n, nil
}

func (s *Server) fleetAt(r *http.Request, revision int64) (*placement.Fleet, error) {
	if s.cfg.Ops.History == nil {
		return nil, fmt.Errorf("config: %w", ErrNotHere)
	}
	f, err := s.cfg.Ops.History.FleetAt(r.Context(), revision)
	if err != nil {
		return nil, fmt.Errorf("config at revision %d: %w", revision, err)
	}
	return f, nil
}

// postRollback applies what was applied before. The same rules judge it: what was
// right last week may leave no headroom today.
func (s *Server) postRollback(r *http.Request) (any, error) {
	var req RollbackRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	err := errors.Join(needReason(req.Reason), knownRules(req.Override))
	if req.Revision <= 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d is no revision to go back to", ErrInvalid, req.Revision))
	}
	if err != nil {
		return nil, fmt.Errorf("rollback: %w", err)
	}
	fleet, err := s.fleetAt(r, req.Revision)
	if err != nil {
		return nil, err
	}
	now, err := s.fleetAt(r, 0)
	if err != nil {
		return nil, err
	}
	// What was revoked since stays so: a stolen key does not become good again.
	fleet.Revoked = slices.Compact(slices.Sorted(slices.Values(slices.Concat(fleet.Revoked, now.Revoked))))
	if s.cfg.Ops.Applier == nil {
		return nil, fmt.Errorf("rollback: %w", ErrNotHere)
	}
	return s.applied(r, "rollback", ApplyRequest{Fleet: *fleet, Expect: req.Expect, Override: req.Override, DryRun: req.DryRun,
		Note: fmt.Sprintf("back to revision %d: %s", req.Revision, req.Reason)})
}
