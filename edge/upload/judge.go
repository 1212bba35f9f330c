package upload

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"syscall"
)

// Judge says by an HTTP status what publishing a request would come to now: 201 or 204,
// or why it would not. It holds for this moment only; Publish judges again.
func (s *Store) Judge(req Request) int {
	unlock := s.lock(req.Name)
	defer unlock()
	return s.judge(req)
}

// judge weighs the conditions of RFC 9110 section 13.1. The caller holds the name.
func (s *Store) judge(req Request) int {
	rel, err := relative(req.Name)
	if err != nil {
		return http.StatusBadRequest
	}
	st, err := s.root.Stat(rel)
	switch there := err == nil; {
	case errors.Is(err, syscall.ENOTDIR), there && !st.Mode().IsRegular():
		return http.StatusConflict // a directory has the name, or a file that of a directory
	case !there && !errors.Is(err, fs.ErrNotExist):
		return StatusOf(err)
	case req.IfMatch == "" && req.IfNoneMatch == "":
		return successOf(there)
	default:
		return s.conditions(req, rel, there)
	}
}

func successOf(there bool) int {
	if there {
		return http.StatusNoContent
	}
	return http.StatusCreated
}

func (s *Store) conditions(req Request, rel string, there bool) int {
	tag := ""
	if there && (needsTag(req.IfMatch) || needsTag(req.IfNoneMatch)) {
		f, err := s.root.Open(rel)
		if err != nil {
			return StatusOf(err)
		}
		defer f.Close()
		sum, err := sumOf(f)
		if err != nil {
			return StatusOf(err)
		}
		tag = `"` + hex.EncodeToString(sum[:]) + `"`
	}
	// Only without If-Match is If-None-Match looked at first (section 13.2.2), and for
	// what changes a state both must hold.
	if req.IfMatch != "" && !Lists(req.IfMatch, tag, there, false) || req.IfNoneMatch != "" && Lists(req.IfNoneMatch, tag, there, true) {
		return http.StatusPreconditionFailed
	}
	return successOf(there)
}

func needsTag(list string) bool { return list != "" && strings.TrimSpace(list) != "*" }

// Lists reports whether a list of entity tags (RFC 9110 section 8.8.3) names the object that
// is there, whose tag is tag. Ours are strong; a weak comparison disregards W/ on the
// client's side.
func Lists(list, tag string, there, weak bool) bool {
	if strings.TrimSpace(list) == "*" {
		return there
	}
	for t := range strings.SplitSeq(list, ",") {
		t = strings.TrimSpace(t)
		if weak {
			t = strings.TrimPrefix(t, "W/")
		}
		if tag != "" && t == tag {
			return true
		}
	}
	return false
}

// StatusOf is the HTTP status that tells a client of an error.
func StatusOf(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, ErrFull):
		return http.StatusServiceUnavailable
	case errors.Is(err, ErrName), errors.Is(err, syscall.ENAMETOOLONG):
		return http.StatusBadRequest
	case noSpace(err):
		return http.StatusInsufficientStorage
	case errors.Is(err, fs.ErrPermission):
		return http.StatusForbidden
	}
	return http.StatusInternalServerError
}
