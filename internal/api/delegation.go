package api

import (
	"fmt"
	"net/http"
)

// Delegation is what the parent of a zone must hold, so that resolvers find it.
type Delegation struct {
	Zone string `json:"zone"`
	// Parent is the zone of this fleet which delegates it; empty: somebody else's.
	Parent string `json:"parent,omitempty"`
	// Made is set when that parent makes NS and glue for each resolver: then nothing
	// has to be written there, and the records are those of last resort.
	Made    bool               `json:"made,omitempty"`
	Records []DelegationRecord `json:"records"`
	// Problems are differences which a parent of this fleet has, and name servers
	// which cannot be found.
	Problems []string `json:"problems,omitempty"`
}

// DelegationRecord is one NS, or one address of a name server as glue.
type DelegationRecord struct {
	Name string `json:"name"`
	TTL  uint32 `json:"ttl"`
	Type string `json:"type"`
	Data string `json:"data"`
}

// Line is the record as a master file writes it (RFC 1035, 5.1).
func (r DelegationRecord) Line() string {
	return fmt.Sprintf("%s %d IN %s %s", r.Name, r.TTL, r.Type, r.Data)
}

func (s *Server) getDelegation(r *http.Request) (any, error) {
	name := fqdn(r.PathValue("zone"))
	if s.cfg.Delegation == nil {
		return nil, fmt.Errorf("delegation of %s: %w", name, ErrNotHere)
	}
	d, err := s.cfg.Delegation(r.Context(), name)
	if err != nil {
		return nil, fmt.Errorf("delegation of %s: %w", name, err)
	}
	return d, nil
}
