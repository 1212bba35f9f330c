package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"rhumb/authdns"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/geo"
)

// rehearsal is a name server that answers by a fleet file, to nobody but us: without
// votes everything is well, and without demand nothing is full.
type rehearsal struct {
	server *authdns.Server
	// levels are those of the listeners that are asked: the next one where the one
	// before has no zone for the name.
	levels []placement.Level
}

// newRehearsal makes one. With act, what the fleet only observes is answered too:
// otherwise the static sets would be compared, which say little.
func newRehearsal(file string, databases []string, levels []placement.Level, act bool, a *app) (*rehearsal, error) {
	fleet, err := config.LoadFleet(file, readZone)
	if err != nil {
		return nil, err
	}
	inv := &placement.Inventory{Revision: 1, Fleet: fleet.Fleet}
	if act {
		inv.Mode, inv.Roles = placement.Act, nil
		for i := range inv.Services {
			inv.Services[i].Mode = placement.Act
		}
	}
	source, err := geo.NewSource(geo.SourceOptions{Paths: databases, Log: a.logger()})
	if err != nil {
		return nil, err
	}
	table, err := (&classes{source: source}).of(inv)
	if err != nil {
		return nil, err
	}
	plan, _ := decide.Plan(decide.PlanInput{Inventory: inv, Classes: table, Now: time.Now().UTC(), By: "shadow"})
	snap, err := decide.Unfold(inv, table, plan, decide.Fold(inv, nil, plan), 0, false)
	if err != nil {
		return nil, fmt.Errorf("shadow: %s: %w", file, err)
	}
	server, err := authdns.New(authdns.Config{Site: "shadow", Node: "shadow", Version: version, Workers: 1})
	if err != nil {
		return nil, err
	}
	r := &rehearsal{server, levels}
	return r, r.load(snap, fleet.Blobs)
}

// load gives the server its zones and the snapshot. A zone that others hold, as a copy
// of a primary, is not in the file and stays unanswered.
func (r *rehearsal) load(snap *placement.Snapshot, blobs map[string][]byte) error {
	var sources []authdns.Source
	for _, z := range snap.Inventory.Zones {
		if z.Catalog != nil {
			continue // nobody may ask for it
		}
		src := authdns.Source{Zone: z, Data: blobs[z.SHA256], Steered: steeredNames(snap.Inventory)}
		if z.Secondary != nil {
			src.Unserved = "a copy, which a fleet file does not hold"
		}
		sources = append(sources, src)
	}
	r.server.Apply(context.Background(), snap)
	if errs := r.server.SetZones(sources); len(errs) > 0 {
		return fmt.Errorf("shadow: %w", errs[0])
	}
	return nil
}

// answer answers a recorded query as its client would have got it.
func (r *rehearsal) answer(_ context.Context, query []byte, client netip.AddrPort) ([]byte, string) {
	var reply authdns.Reply
	for _, level := range r.levels {
		if reply = r.server.Ask(query, client, level, false); reply.Zone != "" {
			break
		}
	}
	why := ""
	switch {
	case reply.Service != "" && reply.Site != "":
		why = fmt.Sprintf("service %s: site %s, %s", reply.Service, reply.Site, reply.Reason)
	case reply.Service != "":
		why = fmt.Sprintf("service %s: %s", reply.Service, reply.Reason)
	case reply.Zone == "":
		why = "no zone of this fleet"
	}
	return reply.Data, why
}

// remote asks a name server, not faster than it was allowed, and each question of its
// kind once: how a server takes load is not what is looked at.
type remote struct {
	addr  string
	pace  <-chan time.Time
	limit time.Duration

	mu   sync.Mutex
	told map[string][]byte // replies by query without its ID
}

func newRemote(addr string, pace <-chan time.Time, limit time.Duration) *remote {
	return &remote{addr: addr, pace: pace, limit: limit, told: make(map[string][]byte)}
}

// answer asks over UDP, and over TCP if the reply was cut off; nil without a reply.
func (r *remote) answer(ctx context.Context, query []byte, _ netip.AddrPort) ([]byte, string) {
	key := string(query[2:])
	r.mu.Lock()
	reply, known := r.told[key]
	r.mu.Unlock()
	if known {
		return reply, ""
	}
	select {
	case <-r.pace:
	case <-ctx.Done():
		return nil, ""
	}
	reply = r.ask(ctx, "udp", query)
	if len(reply) > 2 && reply[2]&2 != 0 {
		if whole := r.ask(ctx, "tcp", query); whole != nil {
			reply = whole
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told[key] = reply
	return reply, ""
}

// ask asks once, twice over UDP.
func (r *remote) ask(ctx context.Context, network string, query []byte) []byte {
	for range map[string]int{"udp": 2, "tcp": 1}[network] {
		if reply, err := r.try(ctx, network, query); err == nil || ctx.Err() != nil {
			return reply
		}
	}
	return nil
}

func (r *remote) try(ctx context.Context, network string, query []byte) ([]byte, error) {
	c, err := (&net.Dialer{Timeout: r.limit}).DialContext(ctx, network, r.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(r.limit)); err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<16)
	if network == "tcp" {
		return tryTCP(c, query, buf)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= 12 && binary.BigEndian.Uint16(buf) == binary.BigEndian.Uint16(query) {
			return buf[:n], nil
		}
	}
}

func tryTCP(c net.Conn, query, buf []byte) ([]byte, error) {
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c, buf[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}
