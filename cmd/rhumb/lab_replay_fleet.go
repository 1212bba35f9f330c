package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
)

// A replay changes the fleet in two ways: as an operator does, judged by the rules;
// and past them, as a job does which writes into the store by itself. The second
// way leads through the console of the lab, which no other fleet has.

// putUnjudged stores a fleet without asking any rule.
func (u *unit) putUnjudged(w http.ResponseWriter, r *http.Request) {
	var fleet placement.Fleet
	if err := json.NewDecoder(r.Body).Decode(&fleet); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if _, err := u.store.PutFleet(r.Context(), &fleet, nil, 0, "replay", r.URL.Query().Get("note")); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// labFleet reads and changes the fleet of a running lab by its sockets.
type labFleet struct{ dir labDir }

// within bounds one request; a store between continents takes its time.
const fleetWithin = 30 * time.Second

func (f labFleet) client() (*client, error) {
	a := &app{global: globalFlags{timeout: fleetWithin}}
	return a.dial(f.dir.path("admin.sock"))
}

// live returns the fleet in force.
func (f labFleet) live(ctx context.Context) (*placement.Fleet, error) {
	c, err := f.client()
	if err != nil {
		return nil, err
	}
	defer c.http.CloseIdleConnections()
	var inv placement.Inventory
	_, err = c.get(ctx, "/config", &inv)
	return &inv.Fleet, err
}

// apply asks as `rhumb apply` does. What stands against it comes back as refusals.
func (f labFleet) apply(ctx context.Context, fleet *placement.Fleet, note string) ([]placement.Refusal, error) {
	c, err := f.client()
	if err != nil {
		return nil, err
	}
	defer c.http.CloseIdleConnections()
	_, err = c.do(ctx, http.MethodPut, "/config", api.ApplyRequest{Fleet: *fleet, Note: note}, nil)
	if list := refusedBy(err); len(list) > 0 {
		return list, nil
	}
	return nil, err
}

// put stores a fleet past the rules.
func (f labFleet) put(ctx context.Context, fleet *placement.Fleet) error {
	ctx, cancel := context.WithTimeout(ctx, fleetWithin)
	defer cancel()
	body, err := json.Marshal(fleet)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://console/?note=replay", bytes.NewReader(body))
	if err != nil {
		return err
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.dir.path("console", "run", "state.sock"))
	}}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return fmt.Errorf("lab: console: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("lab: the console cannot store the fleet: " + resp.Status)
	}
	return nil
}

// copyFleet is a deep copy, to be changed.
func copyFleet(f *placement.Fleet) (*placement.Fleet, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	out := &placement.Fleet{}
	return out, json.Unmarshal(b, out)
}
