package authdns

import (
	"bytes"
	"fmt"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// Source is a zone handed to the Server: what the Inventory says of it, and the
// master file.
type Source struct {
	Zone placement.Zone
	Data []byte
	// Steered are the names in the zone that services answer. A node without a
	// Snapshot knows them from here alone, and says "not ready" instead of
	// denying them; with a Snapshot they are not looked at.
	Steered []string
	// Unserved says why the zone must not be answered, although it is ours: a copy
	// that was never received, or has expired. Data is not looked at then.
	Unserved string
}

// SetZones replaces the zones by these, atomically. Where a zone is wrong its
// previous version goes on being served and the error is returned (in the order
// of the sources, each a *zone.Error) and shown by Status. A zone not among the
// sources is no longer served.
func (s *Server) SetZones(sources []Source) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*loaded, len(sources))
	var errs []error
	for i := range sources {
		src := &sources[i]
		name := zone.Canonical(src.Zone.Name)
		l, err := s.load(name, src)
		if err != nil {
			errs = append(errs, err)
		}
		next[name] = l
	}
	s.zones = next
	s.publish(s.snap)
	s.metrics.setZones(s.zones)
	return errs
}

// load returns the zone of a source: the version in force where its digest is
// the same, the new one where it is right, else the previous one with the fault.
func (s *Server) load(name string, src *Source) (*loaded, error) {
	old := s.zones[name]
	l := &loaded{meta: src.Zone, steered: src.Steered}
	l.meta.Name = name
	if src.Unserved != "" {
		l.unserved, l.fault = src.Unserved, src.Unserved
		return l, nil
	}
	if old != nil {
		l.zone, l.at = old.zone, old.at
		if old.fault == "" && src.Zone.SHA256 != "" && old.meta.SHA256 == src.Zone.SHA256 {
			return l, nil
		}
	}
	z, err := zone.Parse(fmt.Sprintf("%szone", name), name, bytes.NewReader(src.Data))
	if err != nil {
		l.fault = err.Error()
		s.metrics.zoneFailed(name)
		return l, err
	}
	s.logChange(name, l.zone, z)
	l.zone, l.at = z, s.now()
	return l, nil
}

// logChange tells what a new version changes, and what an operator would
// otherwise learn from a secondary which stays behind.
func (s *Server) logChange(name string, old, z *zone.Zone) {
	d := zone.Diff(old, z)
	s.log.Info("zone loaded", "zone", name, "serial", z.Serial(), "names", z.Owners,
		"added", len(d.Added), "lost", len(d.Lost))
	if old != nil && !zone.Later(z.Serial(), old.Serial()) {
		s.log.Warn("zone changed but its serial is not later: secondaries will not see it",
			"zone", name, "serial", z.Serial(), "before", old.Serial())
	}
}
