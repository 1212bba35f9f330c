package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// etcd is the ground of a fleet: a cluster, embedded in our own nodes or the
// operator's.
type etcd struct {
	c    *clientv3.Client
	dial *dialer
}

// openEtcd makes a client; it connects when it is used.
func openEtcd(ctx context.Context, c Etcd, log *slog.Logger) (*etcd, error) {
	d, endpoints := newDialer(c.Group), c.Endpoints
	options := []grpc.DialOption{grpc.WithContextDialer(d.dial)}
	d.above = len(endpoints) > 0 && strings.HasPrefix(endpoints[0], "https:") // which goes for all of them
	if d.mode != TLSOff {
		d.above, endpoints, options = false, inClear(endpoints), d.options()
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: c.TLS, Username: c.Username, Password: c.Password,
		Context: context.WithoutCancel(ctx), // Close ends it: a session gives its lease back after ctx
		Logger:  zapTo(log, slog.LevelWarn),
		// A server of the operator's may punish pings more often than every 5 s.
		DialKeepAliveTime: 6 * time.Second, DialKeepAliveTimeout: 2 * time.Second, DialTimeout: 3 * time.Second,
		// A member that has just come up, or come back, is found within a fraction
		// of a second; the library's own first retry is after a whole one.
		DialOptions: append(options, grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		})),
	})
	if err != nil {
		return nil, fmt.Errorf("store: etcd client: %w", err)
	}
	return &etcd{client, d}, nil
}

// learn asks the members how they know each other.
func (e *etcd) learn(ctx context.Context) error {
	resp, err := e.c.MemberList(ctx)
	if err != nil {
		return err
	}
	closed := true
	for _, m := range resp.Members {
		closed = closed && !peer{urls: m.PeerURLs}.clear()
	}
	return e.dial.learn(closed)
}

func (e *etcd) close() error { return e.c.Close() }

func (e *etcd) read(ctx context.Context, queries ...query) ([][]pair, int64, error) {
	ops := make([]clientv3.Op, len(queries))
	for i, q := range queries {
		ops[i] = rangeOp(q)
	}
	resp, err := e.c.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, 0, err
	}
	out := make([][]pair, len(queries))
	for i, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			out[i] = append(out[i], pair{string(kv.Key), kv.Value, kv.ModRevision, kv.Lease})
		}
	}
	return out, resp.Header.Revision, nil
}

func (e *etcd) readAt(ctx context.Context, rev int64, s span) ([]pair, error) {
	resp, err := e.c.Get(ctx, s.from, clientv3.WithRange(s.to), clientv3.WithRev(rev))
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return nil, errCompacted
	case errors.Is(err, rpctypes.ErrFutureRev):
		return nil, ErrNotFound
	case err != nil:
		return nil, err
	}
	var out []pair
	for _, kv := range resp.Kvs {
		out = append(out, pair{string(kv.Key), kv.Value, kv.ModRevision, kv.Lease})
	}
	return out, nil
}

func rangeOp(q query) clientv3.Op {
	order := clientv3.SortAscend
	if q.desc {
		order = clientv3.SortDescend
	}
	opts := []clientv3.OpOption{clientv3.WithRange(q.to), clientv3.WithLimit(int64(q.limit)),
		clientv3.WithSort(clientv3.SortByKey, order)}
	if q.keysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	return clientv3.OpGet(q.from, opts...)
}

func (e *etcd) write(ctx context.Context, conds []cond, ops []op) (int64, bool, error) {
	var cmps []clientv3.Cmp
	for _, c := range conds {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(c.key), "=", c.mod))
	}
	var then []clientv3.Op
	for _, o := range ops {
		then = append(then, writeOp(o))
	}
	resp, err := e.c.Txn(ctx).If(cmps...).Then(then...).Commit()
	if err != nil {
		return 0, false, leaseLost(err)
	}
	return resp.Header.Revision, resp.Succeeded, nil
}

func writeOp(o op) clientv3.Op {
	switch {
	case !o.del:
		return clientv3.OpPut(o.key, string(o.value), clientv3.WithLease(clientv3.LeaseID(o.lease)))
	case o.to != "":
		return clientv3.OpDelete(o.key, clientv3.WithRange(o.to))
	}
	return clientv3.OpDelete(o.key)
}

// watch joins one etcd watch per span. A member that has lost its leader ends
// the watch rather than stay silent.
func (e *etcd) watch(ctx context.Context, from int64, spans ...span) <-chan batch {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	out := make(chan batch)
	var ends sync.WaitGroup
	for _, s := range spans {
		ch := e.c.Watch(ctx, s.from, clientv3.WithRange(s.to), clientv3.WithRev(from))
		ends.Go(func() {
			defer cancel() // one ended, all end: the reader lists anew
			forward(ctx, ch, out)
		})
	}
	go func() {
		ends.Wait()
		cancel()
		close(out)
	}()
	return out
}

// forward passes what one watch says. Its channel closes after an error and
// when ctx ends; a closed channel must not be taken for an empty event.
func forward(ctx context.Context, in clientv3.WatchChan, out chan<- batch) {
	for resp := range in {
		b := batch{err: resp.Err()}
		if resp.CompactRevision != 0 {
			b.err = errCompacted
		}
		for _, ev := range resp.Events {
			b.rev = ev.Kv.ModRevision
			b.changes = append(b.changes, change{
				pair:    pair{string(ev.Kv.Key), ev.Kv.Value, ev.Kv.ModRevision, ev.Kv.Lease},
				deleted: ev.Type == clientv3.EventTypeDelete})
		}
		if b.err == nil && len(b.changes) == 0 {
			continue // created, or progress
		}
		select {
		case out <- b:
		case <-ctx.Done():
			return
		}
		if b.err != nil {
			return
		}
	}
}

func (e *etcd) grant(ctx context.Context, ttl time.Duration) (int64, error) {
	resp, err := e.c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, err
	}
	return int64(resp.ID), nil
}

func (e *etcd) keep(ctx context.Context, lease int64) error {
	_, err := e.c.KeepAliveOnce(ctx, clientv3.LeaseID(lease))
	return leaseLost(err)
}

func (e *etcd) revoke(ctx context.Context, lease int64) error {
	_, err := e.c.Revoke(ctx, clientv3.LeaseID(lease))
	return leaseLost(err)
}

func leaseLost(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return errLease
	}
	if errors.Is(err, rpctypes.ErrRequestTooLarge) || errors.Is(err, rpctypes.ErrTooManyOps) {
		return fmt.Errorf("%w: %w", errTooLarge, err)
	}
	return err
}
