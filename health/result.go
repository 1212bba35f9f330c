package health

import (
	"context"
	"net/netip"
	"time"

	"rhumb/placement"
)

// Target is what a prober looks at: one address of one cluster, with one check.
type Target struct {
	Object  placement.ClusterID
	Address netip.AddrPort
	// Host is the service's name, for Host header, SNI and the chain's name.
	Host string
	// Hosts are all names of the services of the cluster: each may have a
	// certificate of its own.
	Hosts []string
	Check placement.Check
}

// Result is what one look found; it explains itself.
type Result struct {
	// State is Up, Degraded or Down; Unknown when the look failed for a reason of
	// our own, or when the answer says nothing.
	State placement.State
	Kind  string // class of the finding, a metric label: ok, timeout, refused, status, …
	Cause string // why it is not up, in words of an operator
	Phases
	Bytes int // that were read
	At    time.Time
	// Expires is the earliest date of the certificates seen; zero without TLS.
	Expires time.Time
}

// Phases are how long the parts of a look took, from its start; 0 where it has no
// such part or did not come so far.
type Phases struct {
	Connect   time.Duration // until the connection stood
	Handshake time.Duration // until TLS stood
	First     time.Duration // until the first byte of the answer
	Took      time.Duration // all of it
}

// OK tells whether the target may serve by this look.
func (r *Result) OK() bool { return r.State == placement.Up || r.State == placement.Degraded }

// Prober looks at a target once. It returns within the context's deadline.
type Prober func(ctx context.Context, t Target) Result

func passed(r Result) Result {
	r.State, r.Kind, r.Cause = placement.Up, "ok", ""
	return r
}

func failed(kind, cause string) Result {
	return Result{State: placement.Down, Kind: kind, Cause: cause}
}

// blind is the result of a look that could not see: it neither takes away nor
// brings back.
func blind(kind, cause string) Result {
	return Result{State: placement.Unknown, Kind: kind, Cause: cause}
}

// inverted is what a look means for a check that wants it to fail.
func inverted(r Result) Result {
	switch {
	case r.State == placement.Unknown:
		return r
	case r.OK():
		r.State, r.Kind, r.Cause = placement.Down, "inverted", "it works, and should not"
	default:
		r.State, r.Kind, r.Cause = placement.Up, "ok", ""
	}
	return r
}

// proberOf returns how to find the prober of a check. scripts is the directory
// whose programs may run.
func proberOf(scripts string) func(*placement.Check) Prober {
	script := scriptProber{dir: scripts}
	return func(c *placement.Check) Prober {
		switch {
		case c.HTTP != nil:
			return ProbeHTTP
		case c.TLS != nil:
			return ProbeTLS
		case c.TCP != nil:
			return ProbeTCP
		case c.ICMP != nil:
			return ProbeICMP
		case c.DNS != nil:
			return ProbeDNS
		case c.GRPC != nil:
			return ProbeGRPC
		case c.Script != nil:
			return script.probe
		}
		return func(context.Context, Target) Result {
			return blind("kind", "this binary does not know the kind of check")
		}
	}
}

// whereServed keeps probers from addresses that are away: what they would find there is
// true of another site.
func whereServed(find func(*placement.Check) Prober, away func(netip.Addr) bool) func(*placement.Check) Prober {
	if away == nil {
		return find
	}
	return func(c *placement.Check) Prober {
		probe := find(c)
		return func(ctx context.Context, t Target) Result {
			if away(t.Address.Addr()) {
				return blind(placement.LookAway, "the address is not on this host, as its routes are withdrawn")
			}
			return probe(ctx, t)
		}
	}
}
