package api

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rhumb/placement"
)

// rows makes the sites' rows of a state, with measured rates.
func (s *Server) rows(st State) []Site {
	return Sites(st, s.meter.observe(st.Nodes))
}

func (s *Server) getStatus(*http.Request) (any, error) {
	st := s.cfg.State()
	return StatusOf(st, s.cfg.Identity, s.rows(st)), nil
}

func (s *Server) getSites(*http.Request) (any, error) {
	st := s.cfg.State()
	return list(&st, "SiteList", s.rows(st)), nil
}

func (s *Server) getSite(r *http.Request) (any, error) {
	name := r.PathValue("site")
	for _, row := range s.rows(s.cfg.State()) {
		if row.Name == name {
			return row, nil
		}
	}
	return nil, fmt.Errorf("site %s: %w", name, ErrNotFound)
}

// siteFilter reads the site from path or query; a site that is in no fleet and
// that no unit names is not found.
func siteFilter(st *State, r *http.Request) (string, error) {
	name := cmp.Or(r.PathValue("site"), r.URL.Query().Get("site"))
	known := name == "" || st.inventory().Site(name) != nil ||
		slices.ContainsFunc(st.Nodes, func(n placement.Node) bool { return n.Site == name })
	if !known {
		return "", fmt.Errorf("site %s: %w", name, ErrNotFound)
	}
	return name, nil
}

func (s *Server) getPeers(r *http.Request) (any, error) {
	st := s.cfg.State()
	site, err := siteFilter(&st, r)
	if err != nil {
		return nil, err
	}
	return list(&st, "PeerList", PeersOf(st, site)), nil
}

func (s *Server) getRoutes(r *http.Request) (any, error) {
	st := s.cfg.State()
	site, err := siteFilter(&st, r)
	if err != nil {
		return nil, err
	}
	return list(&st, "RouteList", RoutesOf(st, site)), nil
}

func (s *Server) getZones(*http.Request) (any, error) {
	st := s.cfg.State()
	return list(&st, "ZoneList", ZonesOf(st)), nil
}

func (s *Server) getZone(r *http.Request) (any, error) {
	name := r.PathValue("zone")
	for _, z := range ZonesOf(s.cfg.State()) {
		if fqdn(z.Name) == fqdn(name) {
			return z, nil
		}
	}
	return nil, fmt.Errorf("zone %s: %w", name, ErrNotFound)
}

func (s *Server) getSessions(r *http.Request) (any, error) {
	st := s.cfg.State()
	site, err := siteFilter(&st, r)
	if err != nil {
		return nil, err
	}
	state := r.URL.Query().Get("state")
	if state != "" && !slices.Contains([]string{"own", "foreign", "forwarded", "moving"}, state) {
		return nil, fmt.Errorf("%w: state %q is none of own, foreign, forwarded, moving", ErrInvalid, state)
	}
	return list(&st, "SessionList", SessionsOf(st, site, state)), nil
}

func (s *Server) getNodes(*http.Request) (any, error) {
	st := s.cfg.State()
	return list(&st, "NodeList", NodesOf(st)), nil
}

func (s *Server) getSlots(*http.Request) (any, error) {
	st := s.cfg.State()
	return list(&st, "SlotList", SlotsOf(st)), nil
}

func (s *Server) getRules(*http.Request) (any, error) {
	st := s.cfg.State()
	return list(&st, "RuleList", placement.Rules()), nil
}

func (s *Server) getConfig(*http.Request) (any, error) {
	st := s.cfg.State()
	return st.inventory(), nil
}

func (s *Server) postExplain(r *http.Request) (any, error) {
	var req ExplainRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if req.Name == "" {
		return nil, fmt.Errorf("explain: %w: no name", ErrInvalid)
	}
	return s.explainAt(r, req)
}

func (s *Server) postSimulate(r *http.Request) (any, error) {
	var req SimulateRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if s.cfg.Ops.Simulator == nil {
		return nil, fmt.Errorf("simulate: %w", ErrNotHere)
	}
	inv := s.stateInventory()
	for _, site := range slices.Concat(req.Down, req.Drain) {
		if inv.Site(site) == nil {
			return nil, fmt.Errorf("simulate: site %s: %w", site, ErrNotFound)
		}
	}
	return s.cfg.Ops.Simulator.Simulate(r.Context(), req)
}

func (s *Server) stateInventory() *placement.Inventory {
	st := s.cfg.State()
	return st.inventory()
}

// eventFilter is what GET events may ask for.
type eventFilter struct {
	since int64 // event ID
	after time.Time
	kinds []string
	site  string
	limit int
}

// The number of events which an answer holds unless told otherwise, and at most.
const (
	defaultEvents = 200
	maxEvents     = 4096
)

// parseEvents reads ?since= as an event's ID, an instant, or a time span back from now.
func parseEvents(r *http.Request, now time.Time) (eventFilter, error) {
	q := r.URL.Query()
	f := eventFilter{site: q.Get("site"), limit: defaultEvents}
	if k := q.Get("kind"); k != "" {
		f.kinds = strings.Split(k, ",")
	}
	if l := q.Get("limit"); l != "" {
		n, err := strconv.Atoi(l)
		if err != nil || n < 1 {
			return f, fmt.Errorf("%w: limit %q", ErrInvalid, l)
		}
		f.limit = min(n, maxEvents)
	}
	since := q.Get("since")
	if since == "" {
		return f, nil
	}
	if id, err := strconv.ParseInt(since, 10, 64); err == nil {
		f.since = id
	} else if d, err := time.ParseDuration(since); err == nil {
		f.after = now.Add(-d)
	} else if t, err := time.Parse(time.RFC3339, since); err == nil {
		f.after = t
	} else {
		return f, fmt.Errorf("%w: since %q is neither an event's ID, a span as 1h, nor an RFC 3339 time", ErrInvalid, since)
	}
	return f, nil
}

func (f *eventFilter) keep(e *placement.Event) bool {
	return (f.after.IsZero() || !e.At.Before(f.after)) && (f.site == "" || e.Site == f.site) &&
		(len(f.kinds) == 0 || slices.Contains(f.kinds, e.Kind))
}

func (s *Server) getEvents(r *http.Request) (any, error) {
	st := s.cfg.State()
	f, err := parseEvents(r, s.clock())
	if err != nil {
		return nil, err
	}
	limit := f.limit
	if len(f.kinds) > 0 || f.site != "" || !f.after.IsZero() {
		limit = maxEvents // the filter comes after the log's own limit
	}
	all, err := s.eventsSince(r.Context(), f.since, limit)
	if err != nil {
		return nil, errors.Join(ErrUnavailable, err)
	}
	out := slices.DeleteFunc(slices.Clone(all), func(e placement.Event) bool { return !f.keep(&e) })
	if len(out) > f.limit {
		out = out[len(out)-f.limit:]
	}
	if out == nil {
		out = []placement.Event{}
	}
	return list(&st, "EventList", out), nil
}

// readyz says whether this unit serves from a snapshot; what each part thinks
// stands below with ?verbose. Losing the store does not make it unready: it
// goes on serving.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	st := s.cfg.State()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	ready := st.Snapshot != nil
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if _, verbose := r.URL.Query()["verbose"]; verbose || !ready {
		fmt.Fprintf(w, "[%s] snapshot %s\n", mark(ready), cmp.Or(st.name(), "none"))
		fmt.Fprintf(w, "[%s] store, last heard %s\n", mark(st.Connected), age(st.Heartbeat, st.Now))
		for _, a := range st.Alarms {
			fmt.Fprintf(w, "[!] %s %s %s\n", a.Kind, a.Object, a.Text)
		}
	}
	fmt.Fprintln(w, map[bool]string{true: "ready", false: "not ready"}[ready])
}

func mark(ok bool) string {
	if ok {
		return "+"
	}
	return "-"
}

func age(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}
