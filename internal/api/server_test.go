package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// fakeOps keeps what it was asked for and answers err.
type fakeOps struct {
	err    error
	drain  placement.Drain
	force  placement.Force
	pin    placement.Pin
	dial   placement.Dial
	freeze placement.Freeze
	apply  ApplyRequest
	retire placement.Retirement
	dry    bool
}

func (f *fakeOps) Drain(_ context.Context, d placement.Drain, dry bool) (Outcome, error) {
	f.drain, f.dry = d, dry
	return Outcome{Object: d.Site, Text: "draining", DryRun: dry}, f.err
}
func (f *fakeOps) Undrain(_ context.Context, u Undrain) (Outcome, error) {
	return Outcome{Object: u.Site, Text: "back, asked by " + u.Who}, f.err
}
func (f *fakeOps) Force(_ context.Context, p placement.Force, dry bool) (Outcome, error) {
	f.force, f.dry = p, dry
	return Outcome{Object: p.Object.String()}, f.err
}
func (f *fakeOps) Dial(_ context.Context, d placement.Dial, dry bool) (Outcome, error) {
	f.dial, f.dry = d, dry
	return Outcome{Object: d.Site}, f.err
}
func (f *fakeOps) Pin(_ context.Context, p placement.Pin) (Outcome, error) {
	f.pin = p
	return Outcome{Object: p.Site}, f.err
}
func (f *fakeOps) Freeze(_ context.Context, p placement.Freeze) (Outcome, error) {
	f.freeze = p
	return Outcome{}, f.err
}
func (f *fakeOps) Thaw(context.Context, string) (Outcome, error) { return Outcome{}, f.err }
func (f *fakeOps) Apply(_ context.Context, r ApplyRequest) (ApplyResult, error) {
	f.apply = r
	return ApplyResult{Revision: 901, DryRun: r.DryRun}, f.err
}
func (f *fakeOps) Versions(context.Context) ([]ConfigVersion, error) {
	return []ConfigVersion{{Revision: 900, Current: true}, {Revision: 800, Who: "ann"}}, f.err
}
func (f *fakeOps) FleetAt(_ context.Context, revision int64) (*placement.Fleet, error) {
	switch revision {
	case 0:
		return &placement.Fleet{Version: 1, Revoked: []string{"bb"}}, f.err
	case 800:
		return &placement.Fleet{Version: 1, Mode: placement.Act, Revoked: []string{"aa"}}, f.err
	}
	return nil, ErrNotFound
}
func (f *fakeOps) Compare(from, to *placement.Fleet) []Change {
	return []Change{{Kind: "fleet", Object: "fleet", Verb: "changed", Text: string(from.Mode) + " to " + string(to.Mode)}}
}
func (f *fakeOps) FreeSlot(_ context.Context, s FreeSlot) (Outcome, error) {
	return Outcome{Object: s.Prefix.String()}, f.err
}
func (f *fakeOps) Retire(_ context.Context, r placement.Retirement, dry bool) (Outcome, error) {
	f.retire, f.dry = r, dry
	return Outcome{Object: r.Prefix.String()}, f.err
}
func (f *fakeOps) Restore(_ context.Context, r Restore) (Outcome, error) {
	return Outcome{Object: r.Prefix.String(), Text: "asked by " + r.Who}, f.err
}
func (f *fakeOps) Simulate(context.Context, SimulateRequest) (Forecast, error) {
	return Forecast{Anycast: "unknown"}, f.err
}

func testServer(t *testing.T, ops *fakeOps) *Server {
	t.Helper()
	st, reg := testState(t), prometheus.NewRegistry()
	s, err := New(Config{State: func() State { return st }, Gatherer: reg, Registerer: reg,
		Events:   memoryLog{{ID: 1, At: ago(1e12), Kind: "bgp", Text: "one"}, {ID: 2, At: ago(1e9), Kind: "health", Site: "ams1", Text: "two"}},
		Ops:      Ops{Drainer: ops, Setter: ops, Freezer: ops, Applier: ops, History: ops, Slots: ops, Retirer: ops, Simulator: ops, Looker: ops},
		Assets:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page "+r.URL.Path) }),
		Identity: Identity{Node: "ams1-a", Unit: "rhumb-dns", Version: "v0"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// as asks as a caller of some role, as a connection of that kind would.
func as(s *Server, c caller, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func operator() caller { return caller{role: roleOperate, who: "eve"} }

func TestEveryReadAnswers(t *testing.T) {
	s := testServer(t, &fakeOps{})
	for path, want := range map[string]string{
		"/api/v1/status": `"healthy":true`, "/api/v1/sites": `"kind":"SiteList"`, "/api/v1/sites/ams1": `"name":"ams1"`,
		"/api/v1/peers": `"kind":"PeerList"`, "/api/v1/peers/tyo1/routes": `"announced":"gshut"`, "/api/v1/zones/demo.test": `"serials":[1041]`,
		"/api/v1/sessions?state=moving": `"moving":3`, "/api/v1/nodes": `"rhumb-director"`, "/api/v1/slots": `"free":false`, "/api/v1/prefixes": `"state":"announced"`,
		"/api/v1/rules": `"max-drains"`, "/api/v1/config": `"revision":900`, "/api/v1/events?kind=health": `"items":[{"id":2`,
		"/api/v1/config/history": `"revision":800,"who":"ann"`, "/api/v1/config/800": `"mode":"act"`, "/api/v1/config/diff?from=800": `"text":"act to "`,
		"/api/v1/openapi.json": `"openapi":"3.1.0"`, "/livez": "ok", "/readyz?verbose": "[+] snapshot 1042.17",
		"/metrics": "rhumb_stream_clients 0", "/": "page /", "/main.js": "page /main.js",
	} {
		if w := as(s, caller{role: roleRead}, "GET", path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("GET %s: %d, no %q in %s", path, w.Code, want, w.Body)
		}
	}
}

func TestProblems(t *testing.T) {
	refusal := &placement.Refusal{Rule: placement.RuleMaxDrains, Object: "ams1", Have: "1 drained", Limit: "1"}
	second := &placement.Refusal{Rule: placement.RuleMinSites, Object: "fleet", Have: "1", Limit: "2"}
	drain := `{"reason":"x"}`
	tests := map[string]struct {
		err                error
		method, path, body string
		code               int
		want               string
	}{
		"refused":          {refusal, "POST", "/api/v1/sites/ams1/drain", drain, 409, `"rule":"max-drains"`},
		"refused twice":    {errors.Join(refusal, second), "POST", "/api/v1/sites/ams1/drain", drain, 409, `"refusals":[{"rule":"max-drains"`},
		"store away":       {ErrUnavailable, "POST", "/api/v1/sites/ams1/drain", drain, 503, `"code":"store-away"`},
		"changed since":    {ErrConflict, "PUT", "/api/v1/config", "{}", 412, `"code":"changed-since"`},
		"anything else":    {errors.New("boom"), "POST", "/api/v1/thaw", "", 500, `"detail":"thaw of the fleet: boom"`},
		"no such site":     {nil, "GET", "/api/v1/sites/sin1", "", 404, `"code":"not-found"`},
		"no such route":    {nil, "GET", "/api/v1/nothing", "", 404, `"code":"not-found"`},
		"no reason":        {nil, "POST", "/api/v1/sites/ams1/drain", "{}", 400, "give a reason"},
		"for and until":    {nil, "POST", "/api/v1/sites/ams1/drain", `{"reason":"x","for":"1m","until":"2126-01-01T00:00:00Z"}`, 400, "exclude each other"},
		"return without":   {nil, "POST", "/api/v1/sites/ams1/drain", `{"reason":"x","return":"auto"}`, 400, "needs a time"},
		"no such node":     {nil, "POST", "/api/v1/sites/ams1%2Fn9/drain", drain, 404, "ams1/n9"},
		"unknown rule":     {nil, "POST", "/api/v1/sites/ams1/drain", `{"reason":"x","override":["fault"]}`, 400, `no rule \"fault\" can be overridden`},
		"a field misspelt": {nil, "POST", "/api/v1/sites/ams1/drain", `{"raeson":"x"}`, 400, "raeson"},
		"dial over all":    {nil, "POST", "/api/v1/sites/ams1/dial", `{"percent":101,"reason":"x"}`, 400, "not within"},
		"dial no cluster":  {nil, "POST", "/api/v1/sites/ams1/dial", `{"cluster":"mail","percent":1,"reason":"x"}`, 404, "ams1/mail"},
		"force sideways":   {nil, "POST", "/api/v1/sites/ams1/force", `{"state":"left","reason":"x"}`, 400, "none of up"},
		"retire nothing":   {nil, "POST", "/api/v1/prefixes/retire", `{"reason":"x"}`, 400, "is no prefix"},
		"retire a host":    {nil, "POST", "/api/v1/prefixes/retire", `{"prefix":"192.0.2.1/24","reason":"x"}`, 400, "is no prefix"},
		"retire past it":   {nil, "POST", "/api/v1/prefixes/retire", `{"prefix":"192.0.2.0/24","reason":"x","override":["retire"]}`, 400, "can be overridden"},
		"restore for fun":  {nil, "POST", "/api/v1/prefixes/restore", `{"prefix":"192.0.2.0/24"}`, 400, "give a reason"},
		"events of never":  {nil, "GET", "/api/v1/events?since=never", "", 400, "RFC 3339"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := as(testServer(t, &fakeOps{err: tt.err}), operator(), tt.method, tt.path, tt.body)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%d %s, want %d with %s", w.Code, w.Body, tt.code, tt.want)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %s", got)
			}
		})
	}
}

func TestChangesReachTheOps(t *testing.T) {
	ops := &fakeOps{}
	s := testServer(t, ops)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/api/v1/sites/ams1/drain", `{"reason":"fibre","for":"45m","return":"auto","override":["max-drains"],"dry_run":true}`},
		{"POST", "/api/v1/sites/ams1/force", `{"cluster":"web","state":"down","reason":"fire"}`},
		{"POST", "/api/v1/sites/ams1/dial", `{"cluster":"web","percent":33.3,"reason":"heat"}`},
		{"PUT", "/api/v1/pins/ams1", `{"revision":1041,"reason":"bug"}`},
		{"POST", "/api/v1/freeze", `{"reason":"exam"}`},
		{"POST", "/api/v1/prefixes/retire", `{"prefix":"192.0.2.0/24","reason":"sold","override":["blast-radius"]}`},
		{"POST", "/api/v1/prefixes/restore", `{"prefix":"192.0.2.0/24","reason":"not sold"}`},
		{"PUT", "/api/v1/config?dry_run=true", `{"fleet":{"version":1},"expect":1}`},
	} {
		if w := as(s, operator(), c.method, c.path, c.body); w.Code != 200 {
			t.Fatalf("%s: %d %s", c.path, w.Code, w.Body)
		}
	}
	d := ops.drain
	if d.Site != "ams1" || d.Who != "eve" || d.Reason != "fibre" || d.Until.Sub(d.Since).Minutes() != 45 || d.Return != "auto" || len(d.Override) != 1 || d.Since.IsZero() {
		t.Errorf("drain: %+v", d)
	}
	if ops.force.Object.String() != "ams1/web" || ops.force.State != placement.ForceDown || ops.dial.PerMille != 333 || ops.dial.Site != "ams1/web" || ops.pin.Revision != 1041 || ops.freeze.Who != "eve" {
		t.Errorf("force %+v, dial %+v, pin %+v, freeze %+v", ops.force, ops.dial, ops.pin, ops.freeze)
	}
	if r := ops.retire; r.Prefix.String() != "192.0.2.0/24" || r.Who != "eve" || r.Reason != "sold" || len(r.Override) != 1 || r.Since.IsZero() {
		t.Errorf("retirement: %+v", r)
	}
	if !ops.apply.DryRun || ops.apply.Expect != 1 || ops.apply.Who != "eve" {
		t.Errorf("apply: %+v", ops.apply)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	s := testServer(t, &fakeOps{})
	for _, tt := range []struct {
		who  caller
		path string
		want int
	}{
		{caller{}, "/api/v1/explain", 403},
		{caller{role: roleRead}, "/api/v1/explain", 200},
		{caller{role: roleRead}, "/api/v1/thaw", 403},
		{operator(), "/api/v1/thaw", 200},
	} {
		w := as(s, tt.who, "POST", tt.path, `{"name":"www.cdn.demo.test","client":"203.0.113.1"}`)
		if w.Code != tt.want {
			t.Errorf("POST %s as %+v: %d, want %d", tt.path, tt.who, w.Code, tt.want)
		}
	}
	nobody := func(uint32) (string, []string) { return "joe", []string{"7", "44"} }
	for name, tt := range map[string]struct {
		uid, gid, own, group uint32
		want                 role
	}{
		"root": {0, 0, 50, 50, roleOperate}, "the same user": {50, 9, 50, 50, roleOperate}, "primary group": {60, 44, 50, 44, roleOperate},
		"a further group": {60, 9, 50, 44, roleOperate}, "a stranger": {60, 9, 50, 45, roleNone},
	} {
		if got := judgePeer(tt.uid, tt.gid, tt.own, tt.group, nobody); got.role != tt.want || got.who != "joe" {
			t.Errorf("%s: %+v, want role %d", name, got, tt.want)
		}
	}
	for addr, want := range map[string]role{"127.0.0.1": roleRead, "::1": roleRead, "192.0.2.1": roleNone} {
		if got := tcpCaller(&net.TCPAddr{IP: net.ParseIP(addr)}, false); got.role != want {
			t.Errorf("tcp from %s: role %d, want %d", addr, got.role, want)
		}
	}
	if got := tcpCaller(&net.TCPAddr{IP: net.ParseIP("127.0.0.1")}, true); got.role != roleOperate {
		t.Errorf("in the lab loopback has role %d", got.role)
	}
}

// TestStrangePagesStayOut: another site's page in the operator's browser can
// neither read through a rebound name nor post a form.
func TestStrangePagesStayOut(t *testing.T) {
	s := testServer(t, &fakeOps{})
	ask := func(host, origin, method, path string) int {
		r := httptest.NewRequest(method, "http://"+host+path, nil)
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, operator()))
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "script-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("policy %q", csp)
		}
		return w.Code
	}
	for name, tt := range map[string]struct {
		host, origin, method, path string
		want                       int
	}{
		"rebound name":  {"evil.test:8053", "", "GET", "/api/v1/status", 421},
		"by address":    {"127.0.0.1:8053", "", "GET", "/api/v1/status", 200},
		"by v6 address": {"[::1]:8053", "", "GET", "/api/v1/status", 200},
		"cross post":    {"localhost:8053", "http://evil.test", "POST", "/api/v1/thaw", 403},
		"own post":      {"localhost:8053", "http://localhost:8053", "POST", "/api/v1/thaw", 200},
	} {
		if got := ask(tt.host, tt.origin, tt.method, tt.path); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func TestServeOnASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "u.sock")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path); err == nil {
		t.Error("a second server took a living socket")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := testServer(t, &fakeOps{})
	go func() { done <- s.Serve(ctx, l) }()
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	res, err := hc.Post("http://rhumb/api/v1/sites/ams1/undrain", "application/json", bytes.NewReader([]byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	var out Outcome
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if err := json.Unmarshal(body, &out); err != nil || !strings.HasPrefix(out.Text, "back, asked by ") || out.Text == "back, asked by " {
		t.Errorf("%d %s: the peer has no name", res.StatusCode, body)
	}
	hc.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
