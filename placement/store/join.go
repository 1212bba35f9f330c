package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// joinTime is how long a member that begins without data waits for what others say.
const joinTime = 2 * time.Second

// join asks the others what they have of a member that begins without data, and tells
// whether it begins in clear. etcd asks, too, but by a name made of the member's address
// with its scheme: where the members went over since, it would take itself for new, and
// two such members of three would be a majority of another, empty cluster.
func (g *gate) join(ctx context.Context, self string) (clear bool, err error) {
	if g.c.Mode == TLSAllow {
		clear = true
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(g.c.asks, joinTime))
	defer cancel()
	heard := make(chan heldRecord, len(g.members))
	asked := 0
	for _, m := range g.members {
		if m.Name != self {
			asked++
			go func() { heard <- g.recordAt(ctx, hostOf(m.PeerURL), self) }()
		}
	}
	for range asked {
		r := <-heard
		switch {
		case r.member == nil:
		case len(r.member.ClientURLs) > 0:
			return false, fmt.Errorf("%s knows a member %s whose data are not here: begun anew, it would be one of another cluster", r.from, self)
		case !(peer{urls: r.member.PeerURLs}).clear():
		case g.c.Mode == TLSRequire:
			return false, fmt.Errorf("%s knows the members in clear, and TLS is required here: say auto at every member first, and wait until none does", r.from)
		case !r.tls && g.c.Mode == TLSAuto:
			return false, fmt.Errorf("%s speaks in clear alone: make a pair for every member (rhumb identity store), or say allow here", r.from)
		default:
			clear = true
		}
	}
	return clear, nil
}

// heldRecord is what another member has of this one.
type heldRecord struct {
	from   string
	tls    bool
	member *membership.Member // nil: nothing, or no answer
}

// recordAt asks by TLS, and in clear where the mode leaves the choice. What is said in
// clear, anybody on the way can have said: it may stop a member, and not change it.
func (g *gate) recordAt(ctx context.Context, host, self string) heldRecord {
	tr, err := transport.NewTransport(g.dialInfo(), cmp.Or(g.c.asks, joinTime))
	if err != nil {
		return heldRecord{}
	}
	defer tr.CloseIdleConnections()
	all, err := membersAt(ctx, tr, "https://"+host)
	secure := err == nil
	if err != nil && g.c.Mode != TLSRequire {
		clear := &http.Transport{}
		defer clear.CloseIdleConnections()
		all, err = membersAt(ctx, clear, "http://"+host)
	}
	if err != nil {
		return heldRecord{}
	}
	for i := range all {
		if all[i].Name == self {
			return heldRecord{from: host, tls: secure, member: &all[i]}
		}
	}
	return heldRecord{}
}

// membersAt reads the membership as one member has it.
func membersAt(ctx context.Context, tr http.RoundTripper, url string) ([]membership.Member, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/members", nil)
	if err != nil {
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	var all []membership.Member
	return all, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&all)
}
