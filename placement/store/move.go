package store

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

const (
	// reachTime bounds one question to another member.
	reachTime = 5 * time.Second
	// moveTime is how long a member that went over has to take part again.
	moveTime = 30 * time.Second
)

// peer is a member as all others know it.
type peer struct {
	id   types.ID
	name string
	urls []string
	self bool
}

// clear tells whether the others dial it in clear.
func (p peer) clear() bool {
	return slices.ContainsFunc(p.urls, func(u string) bool { return strings.HasPrefix(u, "http:") })
}

// alone tells whether only its own machine can reach it.
func (p peer) alone() bool {
	return !slices.ContainsFunc(p.urls, func(u string) bool {
		a, err := netip.ParseAddrPort(hostOf(u))
		return err != nil || !a.Addr().Unmap().IsLoopback()
	})
}

// membersOf returns the membership that a member has applied, in order of name.
func membersOf(s *etcdserver.EtcdServer) []peer {
	var out []peer
	for _, m := range s.Cluster().Members() {
		out = append(out, peer{m.ID, m.Name, m.PeerURLs, m.ID == s.MemberID()})
	}
	slices.SortFunc(out, func(a, b peer) int { return strings.Compare(a.name, b.name) })
	return out
}

func countClear(all []peer) (n int) {
	for _, p := range all {
		if p.clear() {
			n++
		}
	}
	return n
}

// countExposed counts those that are dialled in clear from another machine.
func countExposed(all []peer) (n int) {
	for _, p := range all {
		if p.clear() && !p.alone() {
			n++
		}
	}
	return n
}

// nextMove chooses the member that goes over next, as the one who moves sees it:
// itself last, so that it can take back each of the others. nil: there is none.
func nextMove(all []peer, toTLS bool) *peer {
	var last *peer
	for i := range all {
		switch p := &all[i]; {
		case p.clear() != toTLS:
		case p.self:
			last = p
		default:
			return p
		}
	}
	return last
}

// flipped returns URLs with the other scheme.
func flipped(urls []string) []string {
	var out []string
	for _, u := range urls {
		if rest, ok := strings.CutPrefix(u, "https:"); ok {
			out = append(out, "http:"+rest)
		} else {
			out = append(out, "https:"+strings.TrimPrefix(u, "http:"))
		}
	}
	return out
}

// reach asks every other member something over TLS, exactly as etcd would dial it. Its
// answer shows that both certificates were taken: with TLS 1.3 a client's handshake is
// over before the server has judged it (RFC 8446, 4.4.2.4).
func (g *gate) reach(ctx context.Context, all []peer) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	tr, err := transport.NewTransport(g.dialInfo(), reachTime)
	if err != nil {
		return err
	}
	defer tr.CloseIdleConnections()
	said := make([]string, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		if p.self || len(p.urls) == 0 {
			continue
		}
		wg.Go(func() {
			if err := ask(ctx, tr, "https://"+hostOf(p.urls[0])+"/version"); err != nil {
				said[i] = p.name + " is not reached by TLS: " + cause(err)
			}
		})
	}
	wg.Wait()
	if said = slices.DeleteFunc(said, func(s string) bool { return s == "" }); len(said) > 0 {
		return errors.New(strings.Join(said, "; "))
	}
	return nil
}

// cause is an error's text without what differs each time (port, clock): it is part of
// a record in the store, and each other text would be a write.
func cause(err error) string {
	var op *net.OpError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not yet valid"
	case errors.As(err, &op) && op.Op == "remote error":
		return "it refuses this member's certificate: " + op.Err.Error()
	case errors.As(err, &op):
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

func ask(ctx context.Context, tr http.RoundTripper, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

// errAway says that a move was not begun.
var errAway = errors.New("not all members take part")

// move takes one member over while all take part, waits until they all do again, and
// takes it back if they do not.
func (g *gate) move(ctx context.Context, s *etcdserver.EtcdServer, p peer) error {
	client, err := g.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := g.takePart(ctx, client, s.AppliedIndex()); err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	to := flipped(p.urls)
	if err := update(ctx, s, p.id, to); err != nil {
		return err
	}
	index := s.AppliedIndex()
	g.apply(membersOf(s), countClear(membersOf(s)))
	wait, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	for {
		err := g.takePart(wait, client, index)
		if err == nil {
			g.log.Warn("a member of the store went over", "member", p.name, "to", to)
			return nil
		}
		select {
		case <-time.After(g.c.pace):
		case <-wait.Done():
			if ctx.Err() != nil {
				return err // this member ends; the next one that leads goes on
			}
			return errors.Join(err, update(ctx, s, p.id, p.urls))
		}
	}
}

// update writes a member's URLs into the membership.
func update(ctx context.Context, s *etcdserver.EtcdServer, id types.ID, urls []string) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	_, err := s.UpdateMember(ctx, membership.Member{ID: id, RaftAttributes: membership.RaftAttributes{PeerURLs: urls}})
	return err
}

// client returns a client of all members as they are now: those of an older version
// in clear, all others by TLS.
func (g *gate) client() (*clientv3.Client, error) {
	info := g.dialInfo()
	conf, err := info.ClientConfig()
	if err != nil {
		return nil, err
	}
	d := newDialer(&ClientTLS{Mode: g.c.Mode, Config: conf})
	var all []string
	for _, m := range g.members {
		all = append(all, m.ClientURLs...)
	}
	return clientv3.New(clientv3.Config{Endpoints: inClear(all), DialOptions: d.options(), Logger: zapTo(g.log, slog.LevelError)})
}

// takePart tells whether every member knows a leader and has applied what the one who
// asks had.
func (g *gate) takePart(ctx context.Context, c *clientv3.Client, index uint64) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	for _, url := range c.Endpoints() {
		st, err := c.Status(ctx, url)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", url, err)
		case st.Leader == 0:
			return fmt.Errorf("%s knows no leader", url)
		case st.RaftAppliedIndex < index:
			return fmt.Errorf("%s has applied %d of %d", url, st.RaftAppliedIndex, index)
		}
	}
	return nil
}
