package authdns

import (
	"bytes"
	"fmt"

	"rhumb/authdns/dnssec"
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
	// Keys sign the zone where its Inventory says so. NoKeys says why there are none, or
	// not all; it is told with what comes of that.
	Keys   []*dnssec.Key
	NoKeys error
	// Unserved says why the zone must not be answered, although it is ours: a copy
	// that was never received, or has expired. Data is not looked at then.
	Unserved string
}

// SetZones replaces the zones by these, atomically. Where a zone is wrong its
// previous version goes on being served and the error is returned (in the order
// of the sources; a *zone.Error where the file is wrong) and shown by Status. A zone not among the
// sources is no longer served.
func (s *Server) SetZones(sources []Source) []error {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.setHour()
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
	s.publishZones(next)
	return errs
}

// load returns the zone of a source: the version in force where its digest is
// the same, the new one where it is right, else the previous one with the fault.
func (s *Server) load(name string, src *Source) (*loaded, error) {
	old := s.zones[name]
	l := &loaded{meta: src.Zone, steered: src.Steered, keys: src.Keys, noKeys: src.NoKeys}
	l.meta.Name = name
	if src.Unserved != "" {
		l.unserved, l.fault = src.Unserved, src.Unserved
		return l, nil
	}
	if old != nil {
		l.zone, l.file, l.sign, l.at = old.zone, old.file, old.sign, old.at
		if old.fault == "" && src.Zone.SHA256 != "" && old.meta.SHA256 == src.Zone.SHA256 {
			return l, s.signed(l, old)
		}
	}
	z, err := zone.Parse(fmt.Sprintf("%szone", name), name, bytes.NewReader(src.Data))
	if err != nil {
		l.fault = err.Error()
		s.metrics.zoneFailed(name)
		return l, err
	}
	next := *l
	next.file = z
	if err := s.signed(&next, old); err != nil {
		l.fault, l.keys, l.meta.OtherKeys = next.fault, next.keys, next.meta.OtherKeys
		return l, err
	}
	s.logChange(name, l.file, z)
	s.logSigned(name, z)
	next.at = s.now()
	return &next, nil
}

// signed signs a zone that was loaded and notes why it could not be.
func (s *Server) signed(l, old *loaded) error {
	err := s.sign(l, old)
	if err != nil && l.noKeys != nil {
		err = fmt.Errorf("%w: %w", err, l.noKeys)
	}
	if err != nil {
		l.fault, l.keys = err.Error(), nil
		if old != nil {
			l.keys, l.meta.OtherKeys = old.keys, old.meta.OtherKeys // what is served has to be signed anew in time
		}
		s.metrics.zoneFailed(l.meta.Name)
	}
	return err
}

// logChange tells what a new version changes, and what an operator would
// otherwise learn from a secondary which stays behind.
func (s *Server) logChange(name string, old, z *zone.Zone) {
	added, lost := z.Owners, 0
	if old != nil {
		d := zone.Diff(old, z)
		added, lost = len(d.Added), len(d.Lost)
	}
	s.log.Info("zone loaded", "zone", name, "serial", z.Serial(), "names", z.Owners, "added", added, "lost", lost)
	if old != nil && !zone.Later(z.Serial(), old.Serial()) {
		s.log.Warn("zone changed but its serial is not later: secondaries will not see it",
			"zone", name, "serial", z.Serial(), "before", old.Serial())
	}
}
