package placement

import "time"

// Fault says what a failed check proves. A site which cannot reach what all
// sites share knows nothing about itself, so a shared fault never withdraws.
type Fault string

// The two faults; NoFault is the fault of a good Vote.
const (
	NoFault     Fault = ""
	LocalFault  Fault = "local"  // own listener, link, CPU, memory: may withdraw here
	SharedFault Fault = "shared" // origin, backbone, store, configuration: gshut at most
)

// Check is what to probe, how often, and what its failure means. Exactly one of
// HTTP, TCP and DNS is set.
type Check struct {
	Name    string     `json:"name"`
	HTTP    *HTTPCheck `json:"http,omitempty"`
	TCP     *TCPCheck  `json:"tcp,omitempty"`
	DNS     *DNSCheck  `json:"dns,omitempty"`
	Fault   Fault      `json:"fault"`
	Every   Duration   `json:"every"`
	Timeout Duration   `json:"timeout"`
	Rise    int        `json:"rise"` // good results in a row until up
	Fall    int        `json:"fall"` // bad results in a row until down
}

// HTTPCheck passes when the status is in Expect and the body matches.
type HTTPCheck struct {
	Path   string `json:"path"`
	TLS    bool   `json:"tls,omitempty"`
	Host   string `json:"host,omitempty"`   // Host header and SNI; default: the service's first name
	Expect []int  `json:"expect,omitempty"` // statuses; empty: 200..399
	Body   string `json:"body,omitempty"`   // substring within the first 5,120 bytes
	Verify string `json:"verify,omitempty"` // chain (default) or skip
}

// TCPCheck passes on a handshake and, if set, on the expected bytes.
type TCPCheck struct {
	Send   string `json:"send,omitempty"`
	Expect string `json:"expect,omitempty"`
}

// DNSCheck passes on NOERROR with AA and, if set, the expected record data.
type DNSCheck struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"` // default SOA
	Expect string `json:"expect,omitempty"`
}

// The defaults of a Check: down within 11 s (3 intervals with jitter and a timeout).
const (
	DefaultEvery   = 3 * time.Second
	DefaultTimeout = time.Second
	DefaultRise    = 3
	DefaultFall    = 3
)
