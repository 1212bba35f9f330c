package placement

import "net/netip"

// HealthStats is what a health role reports of its own looks.
type HealthStats struct {
	// Checks are the newest looks, those that failed first; in a record CheckRows at
	// most, of Total.
	Checks []CheckStatus `json:"checks,omitempty"`
	Total  int           `json:"total"`
	// Availability since the unit started, as this vantage saw it.
	Availability []Availability `json:"availability,omitempty"`
}

// CheckRows bounds the looks in a record: it is written every few seconds and wakes
// every node. The unit itself shows all.
const CheckRows = 16

// Short is what of it goes into a record.
func (h *HealthStats) Short() *HealthStats {
	if h == nil || len(h.Checks) <= CheckRows {
		return h
	}
	out := *h
	out.Checks = h.Checks[:CheckRows:CheckRows]
	return &out
}

// LookAway is the result of a look that was not made, as the address is not on the host
// while its routes are withdrawn.
const LookAway = "away"

// CheckStatus is one check of one address: what it is taken for, and the last look.
type CheckStatus struct {
	Cluster ClusterID      `json:"cluster"`
	Address netip.AddrPort `json:"address"`
	Check   string         `json:"check"`
	Kind    string         `json:"kind"`
	// State is the damped one. Evidence never counts.
	State    State `json:"state"`
	Evidence bool  `json:"evidence,omitempty"`
	// Blind is set when the last look could not see: it changed nothing.
	Blind bool `json:"blind,omitempty"`
	// Result, Cause and the times are those of the last look.
	Result string `json:"result"`
	Cause  string `json:"cause,omitempty"`
	Bytes  int    `json:"bytes,omitempty"`
	At     Time   `json:"at"`
	// Milliseconds from the start of the look.
	ConnectMS   float64 `json:"connect_ms,omitempty"`
	HandshakeMS float64 `json:"handshake_ms,omitempty"`
	FirstMS     float64 `json:"first_ms,omitempty"`
	TookMS      float64 `json:"took_ms"`
	// Expires is the earliest date of the certificates seen.
	Expires Time `json:"expires,omitzero"`
}

// Rank orders looks by how much somebody should see them; 0 is the most.
func (c *CheckStatus) Rank() int {
	switch {
	case c.State == Down:
		return 0
	case c.State == Degraded:
		return 1
	case c.Cause != "":
		return 2
	}
	return 3
}

// Figure is whose availability is counted.
type Figure string

// The three figures. A server may fail while its site serves, and a site while the
// service does: one number would hide two of them.
const (
	ServerFigure  Figure = "server"  // the addresses of a cluster, summed
	SiteFigure    Figure = "site"    // fails while every server seen there does, or the site is silent
	ServiceFigure Figure = "service" // fails while every cluster of it does
)

// Availability is how long something was watched from a vantage, and how long it
// failed: two looks in a row, or a vote down where others look.
type Availability struct {
	Figure  Figure  `json:"figure"`
	Name    string  `json:"name"` // SITE/CLUSTER, SITE or service
	Seconds float64 `json:"seconds"`
	Failed  float64 `json:"failed_seconds"`
	Failing bool    `json:"failing,omitempty"`
}

// Part is the available part of the time; 1 where nothing was watched.
func (a *Availability) Part() float64 {
	if a.Seconds <= 0 {
		return 1
	}
	return 1 - a.Failed/a.Seconds
}
