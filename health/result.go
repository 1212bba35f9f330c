package health

import (
	"context"
	"net/netip"
	"time"

	"rhumb/placement"
)

// Target is what a prober looks at: one address of one cluster.
type Target struct {
	Object  placement.ClusterID
	Address netip.AddrPort
	// Host is the service's name, for Host header, SNI and the chain's name.
	Host  string
	Check placement.Check
}

// Result is what one look found; it explains itself.
type Result struct {
	OK      bool
	Cause   string // why not, in words of an operator
	Kind    string // class of the failure, a metric label: ok, timeout, refused, status, …
	Took    time.Duration
	Connect time.Duration // until the connection stood; 0 where there is none
	Bytes   int
	At      time.Time
}

// Prober looks at a target once. It returns within the context's deadline.
type Prober func(ctx context.Context, t Target) Result

// ProberOf returns the prober for a check.
func ProberOf(c *placement.Check) Prober {
	switch {
	case c.HTTP != nil:
		return ProbeHTTP
	case c.TCP != nil:
		return ProbeTCP
	default:
		return ProbeDNS
	}
}

func failed(kind, cause string) Result { return Result{Kind: kind, Cause: cause} }
