package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"rhumb/placement"
)

// What an Op may return beside a *placement.Refusal.
var (
	// ErrNotFound: the named object does not exist (404).
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the store does not answer; nothing was changed (503).
	ErrUnavailable = errors.New("the store does not answer")
	// ErrConflict: the state moved on since the caller looked (412).
	ErrConflict = errors.New("the state has changed since")
	// ErrUnknownCaller: a token or certificate is needed, or the given one is unknown (401).
	ErrUnknownCaller = errors.New("who are you")
	// ErrInvalid: the request makes no sense (400).
	ErrInvalid = errors.New("invalid request")
	// ErrForbidden: the caller may not do this (403).
	ErrForbidden = errors.New("not permitted")
	// ErrBusy: too much of it is asked for at once; later it may be done (429).
	ErrBusy = errors.New("too many at once")
	// ErrNotHere: this unit does not do that (501).
	ErrNotHere = errors.New("this unit does not do that")
)

// Problem is an error as RFC 9457 writes it. Code is stable; a refusal carries
// its rule, object, have and limit beside it.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	*placement.Refusal
	// Refusals holds all of them when more than one rule refuses.
	Refusals []placement.Refusal `json:"refusals,omitempty"`
}

func (p *Problem) Error() string { return p.Detail }

// kinds maps errors to their code and status, in the order in which they are tried.
func kinds() []struct {
	err    error
	code   string
	status int
} {
	return []struct {
		err    error
		code   string
		status int
	}{
		{ErrNotFound, "not-found", http.StatusNotFound},
		{ErrUnavailable, "store-away", http.StatusServiceUnavailable},
		{ErrConflict, "changed-since", http.StatusPreconditionFailed},
		{ErrUnknownCaller, "unknown-caller", http.StatusUnauthorized},
		{ErrForbidden, "forbidden", http.StatusForbidden},
		{ErrInvalid, "invalid", http.StatusBadRequest},
		{ErrNotHere, "not-here", http.StatusNotImplemented},
		{ErrBusy, "busy", http.StatusTooManyRequests},
	}
}

// problemOf says an error in RFC 9457's words.
func problemOf(err error) *Problem {
	p := &Problem{Code: "failed", Status: http.StatusInternalServerError, Detail: err.Error()}
	if all := refusals(err); len(all) > 0 {
		p.Code, p.Status, p.Refusal = "refused", http.StatusConflict, &all[0]
		if len(all) > 1 {
			p.Refusals = all
		}
	} else {
		for _, k := range kinds() {
			if errors.Is(err, k.err) {
				p.Code, p.Status = k.code, k.status
				break
			}
		}
	}
	p.Type = "urn:rhumb:problem:" + p.Code
	p.Title = http.StatusText(p.Status)
	return p
}

// refusals gathers every Refusal of an error's tree.
func refusals(err error) []placement.Refusal {
	if r, ok := err.(*placement.Refusal); ok {
		return []placement.Refusal{*r}
	}
	var out []placement.Refusal
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if next := e.Unwrap(); next != nil {
			out = refusals(next)
		}
	case interface{ Unwrap() []error }:
		for _, next := range e.Unwrap() {
			out = append(out, refusals(next)...)
		}
	}
	return out
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="rhumb"`) // RFC 6750, 3
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client has gone: nobody to tell
}
