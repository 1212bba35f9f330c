package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"rhumb/placement"
)

// maxBody bounds a request: a fleet with its zone files is the largest.
const maxBody = 64 << 20

// APIVersion is in every list; fields are only ever added to it.
const APIVersion = "rhumb/v1"

// List is what every list of objects looks like.
type List[T any] struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Snapshot   string `json:"snapshot,omitempty"` // the state it was made from
	Items      []T    `json:"items"`
}

// endpoint is a row of the route table: what stands in the document and in the mux.
type endpoint struct {
	method, path string
	need         role
	summary      string
	in, out      any // zero values of the documents; nil: none
	serve        func(*http.Request) (any, error)
}

// endpoints is the one table of version 1.
func (s *Server) endpoints() []endpoint {
	return append(s.readEndpoints(), s.changeEndpoints()...)
}

// readEndpoints change nothing; explain, simulate and check are POST since
// their question does not fit into an address.
func (s *Server) readEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/status", roleRead, "One screen: what runs, what is loud, how fresh it is", nil, Status{}, s.getStatus},
		{"GET", "/sites", roleRead, "DNS share, routes and sessions of every site, worst first", nil, List[Site]{}, s.getSites},
		{"GET", "/sites/{site}", roleRead, "One site", nil, Site{}, s.getSite},
		{"GET", "/peers", roleRead, "BGP neighbours; ?site=", nil, List[Peer]{}, s.getPeers},
		{"GET", "/peers/{site}", roleRead, "BGP neighbours of one site", nil, List[Peer]{}, s.getPeers},
		{"GET", "/peers/{site}/routes", roleRead, "What the nodes of a site announce", nil, List[NodeRoute]{}, s.getRoutes},
		{"GET", "/zones", roleRead, "Zones and who serves them", nil, List[Zone]{}, s.getZones},
		{"GET", "/zones/{zone}", roleRead, "One zone", nil, Zone{}, s.getZone},
		{"GET", "/zones/{zone}/delegation", roleRead, "The NS and glue records that the zone's parent must hold", nil, Delegation{}, s.getDelegation},
		{"GET", "/sessions", roleRead, "Client sessions by node; ?site= &state=", nil, List[Sessions]{}, s.getSessions},
		{"GET", "/nodes", roleRead, "Units as they report themselves", nil, List[placement.Node]{}, s.getNodes},
		{"GET", "/slots", roleRead, "Slots and anchors of each prefix", nil, List[Slot]{}, s.getSlots},
		{"GET", "/prefixes", roleRead, "Anycast prefixes: who announces them, and which go for good", nil, List[Prefix]{}, s.getPrefixes},
		{"GET", "/demand", roleRead, "What the clients of each region ask of each service, and what plans count", nil, List[Demand]{}, s.getDemand},
		{"GET", "/checks", roleRead, "The last look of each check, failed ones first; ?site=", nil, List[Check]{}, s.getChecks},
		{"GET", "/checks/looks/{id}", roleRead, "What the vantages have found so far for a look on demand", nil, LookReport{}, s.getLook},
		{"GET", "/availability", roleRead, "Servers, sites and services: how much of the time each vantage saw them work; ?site=", nil, List[Figure]{}, s.getAvailability},
		{"GET", "/rules", roleRead, "The one table of rules", nil, List[placement.Rule]{}, s.getRules},
		{"GET", "/events", roleRead, "Events, oldest first; ?since= &kind= &site= &limit=", nil, List[placement.Event]{}, s.getEvents},
		{"GET", "/config", roleRead, "The fleet in force and its revision", nil, placement.Inventory{}, s.getConfig},
		{"GET", "/config/history", roleRead, "The kept configurations, newest first", nil, List[ConfigVersion]{}, s.getHistory},
		{"GET", "/config/diff", roleRead, "What differs between two configurations; ?from= &to=, 0 or nothing: the one in force", nil, ConfigDiff{}, s.getConfigDiff},
		{"GET", "/config/{revision}", roleRead, "The fleet applied as a revision", nil, placement.Fleet{}, s.getConfigAt},
		{"POST", "/explain", roleRead, "Why a client gets the answer it gets", ExplainRequest{}, Explanation{}, s.postExplain},
		{"POST", "/simulate", roleRead, "Load per site before and after a loss, a drain or a dial", SimulateRequest{}, Forecast{}, s.postSimulate},
		{"POST", "/config/check", roleRead, "What an apply of this fleet would change", ApplyRequest{}, ApplyResult{}, s.postCheck},
	}
}

func (s *Server) changeEndpoints() []endpoint {
	return []endpoint{
		{"PUT", "/config", roleOperate, "Apply a fleet; If-Match: revision, ?dry_run=true", ApplyRequest{}, ApplyResult{}, s.putConfig},
		{"POST", "/config/rollback", roleOperate, "Apply a kept configuration anew, judged like any apply", RollbackRequest{}, ApplyResult{}, s.postRollback},
		{"POST", "/sites/{site}/drain", roleOperate, "Take a site out, by phases", DrainRequest{}, Outcome{}, s.postDrain},
		{"POST", "/sites/{site}/undrain", roleOperate, "Bring a site back", Undrain{}, Outcome{}, s.postUndrain},
		{"POST", "/sites/{site}/force", roleOperate, "Set the operator's word beside the measured state", ForceRequest{}, Outcome{}, s.postForce},
		{"POST", "/sites/{site}/dial", roleOperate, "Limit the share of its clients that a site, or a cluster of it, gets", DialRequest{}, Outcome{}, s.postDial},
		{"PUT", "/pins/{site}", roleOperate, "Hold a site at a plan; revision 0 releases it", PinRequest{}, Outcome{}, s.putPin},
		{"POST", "/checks/looks", roleOperate, "Look at checks now, at one site or all; poll the answer by its id", LookNow{}, LookReport{}, s.postLook},
		{"POST", "/freeze", roleOperate, "Decide nothing by itself any more", ReasonRequest{}, Outcome{}, s.postFreeze},
		{"POST", "/thaw", roleOperate, "Decide again", nil, Outcome{}, s.postThaw},
		{"POST", "/slots/free", roleOperate, "Take a slot from a site that cannot give it back", FreeSlot{}, Outcome{}, s.postFreeSlot},
		{"POST", "/prefixes/retire", roleOperate, "Withdraw a prefix for good, one site after the other", RetireRequest{}, Outcome{}, s.postRetire},
		{"POST", "/prefixes/restore", roleOperate, "Take a retirement back", Restore{}, Outcome{}, s.postRestore},
		{"POST", "/twin/release", roleOperate, "Let the feed of this input-delayed twin go on", ReasonRequest{}, Outcome{}, s.postTwinRelease},
	}
}

const prefix = "/api/v1"

// routes builds the handler: guards outside, the table inside.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, e := range s.endpoints() {
		mux.Handle(e.method+" "+prefix+e.path, s.handle(e))
	}
	mux.HandleFunc("GET "+prefix+"/stream", s.stream)
	mux.HandleFunc("GET "+prefix+"/openapi.json", s.openapi)
	mux.HandleFunc(prefix+"/", s.unknown)
	mux.Handle("GET /metrics", s.scrape())
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	if s.cfg.Assets != nil {
		mux.Handle("/", pages(s.cfg.Assets))
	}
	return s.metrics.count(guard(mux, s.cfg.Tokens))
}

// pages serves files to those who read.
func pages(assets http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "read only", http.StatusMethodNotAllowed)
			return
		}
		assets.ServeHTTP(w, r)
	})
}

// guard stands before every route: names of hosts, who asks, writes of other
// origins, and what a page may load.
func guard(next http.Handler, tokens *Tokens) http.Handler {
	cross := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if !knownHost(r) {
			writeProblem(w, &Problem{Type: "urn:rhumb:problem:host", Title: http.StatusText(http.StatusMisdirectedRequest),
				Status: http.StatusMisdirectedRequest, Code: "host", Detail: "this address is served as localhost only"})
			return
		}
		c, err := identify(r, tokens)
		if err == nil && c.role < roleRead {
			err = stranger(r, c)
		}
		if err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		cross.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// stranger says what is missing to one who may do nothing.
func stranger(r *http.Request, c caller) error {
	switch {
	case c.who != "" && r.TLS != nil:
		return fmt.Errorf("%w: %s has neither %s nor %s as its organizational unit", ErrForbidden, c.who, WordOperator, WordViewer)
	case r.TLS != nil:
		return fmt.Errorf("%w: a token or a client certificate, please", ErrUnknownCaller)
	}
	return fmt.Errorf("%w: only loopback and the unix socket are served in clear", ErrForbidden)
}

func (s *Server) handle(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := allow(r, e.need); err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		doc, err := e.serve(r)
		if err != nil {
			s.log.Debug("request refused", "method", r.Method, "path", r.URL.Path, "err", err)
			writeProblem(w, problemOf(err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(doc) // the client has gone: nobody to tell
	})
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, problemOf(fmt.Errorf("%s %s: %w; see %s/openapi.json", r.Method, r.URL.Path, ErrNotFound, prefix)))
}

// decode reads a request strictly: a misspelt field must not be a wish ignored.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w: %w", r.URL.Path, ErrInvalid, err)
	}
	return nil
}

func list[T any](s *State, kind string, items []T) List[T] {
	return List[T]{APIVersion: APIVersion, Kind: kind, Snapshot: s.name(), Items: items}
}
