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
// the kinds is set: a probe, or Of, which combines other checks.
type Check struct {
	Name   string        `json:"name"`
	HTTP   *HTTPCheck    `json:"http,omitempty"`
	TLS    *TLSCheck     `json:"tls,omitempty"`
	TCP    *TCPCheck     `json:"tcp,omitempty"`
	ICMP   *ICMPCheck    `json:"icmp,omitempty"`
	DNS    *DNSCheck     `json:"dns,omitempty"`
	GRPC   *GRPCCheck    `json:"grpc,omitempty"`
	Script *ScriptCheck  `json:"script,omitempty"`
	Of     *ComposeCheck `json:"of,omitempty"`
	// Invert turns good into bad: a port which must be closed. What is unknown
	// stays unknown.
	Invert bool `json:"invert,omitempty"`
	// Disabled keeps the check in the file and out of every judgement.
	Disabled bool     `json:"disabled,omitempty"`
	Fault    Fault    `json:"fault"`
	Every    Duration `json:"every"`
	Timeout  Duration `json:"timeout"`
	Rise     int      `json:"rise"` // good results in a row until up
	Fall     int      `json:"fall"` // bad results in a row until down
}

// Kind is the key under which a fleet file says what is probed; a metric label.
func (c *Check) Kind() string {
	switch {
	case c.HTTP != nil && c.HTTP.TLS:
		return "https"
	case c.HTTP != nil:
		return "http"
	case c.TLS != nil:
		return "tls"
	case c.TCP != nil:
		return "tcp"
	case c.ICMP != nil:
		return "icmp"
	case c.DNS != nil:
		return "dns"
	case c.GRPC != nil:
		return "grpc"
	case c.Script != nil:
		return "script"
	case c.Of != nil:
		return "of"
	}
	return ""
}

// Evidence tells whether the check explains a failure and judges nobody: an echo
// that comes back proves a path, one that does not come back proves a filter as
// often as a dead host.
func (c *Check) Evidence() bool { return c.ICMP != nil }

// Trust says which certificate a server may show: one whose chain verifies for the
// name (default), one of the pinned keys, or any.
type Trust struct {
	Verify string   `json:"verify,omitempty"` // chain (default), pin or skip
	Pins   []string `json:"pins,omitempty"`   // base64 of SHA-256 over the public key (RFC 7469, 2.4)
	CA     string   `json:"ca,omitempty"`     // PEM; empty: the system's authorities
}

// HTTPCheck passes when the status is in Expect and the body matches.
type HTTPCheck struct {
	Path    string `json:"path"`
	Version string `json:"version,omitempty"` // 1.1 (default) or 2; without TLS by prior knowledge (RFC 9113, 3.3)
	TLS     bool   `json:"tls,omitempty"`
	Host    string `json:"host,omitempty"`   // Host header and SNI; default: the service's first name
	Expect  []int  `json:"expect,omitempty"` // statuses; empty: 200..399
	Body    string `json:"body,omitempty"`   // substring within the first 5,120 bytes
	// Slow is the time above which a right answer is degraded; 0 is none.
	Slow Duration `json:"slow,omitempty"`
	Trust
}

// TLSCheck watches how long certificates last, for every name of the services. It
// warns long before it fails: it is down only when a date has passed.
type TLSCheck struct {
	// Warn and Alarm are what is left when somebody should know.
	Warn  Duration `json:"warn"`
	Alarm Duration `json:"alarm"`
	CA    string   `json:"ca,omitempty"` // PEM; empty: the system's authorities
}

// TCPCheck passes on a handshake and, if set, on the expected bytes.
type TCPCheck struct {
	Send   string `json:"send,omitempty"`
	Expect string `json:"expect,omitempty"`
}

// ICMPCheck passes when one of three echoes comes back. It is evidence of a path
// and never judges a service.
type ICMPCheck struct{}

// DNSCheck passes on NOERROR with AA over UDP and over TCP and, if set, on the
// expected record data.
type DNSCheck struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"` // default SOA
	Expect string `json:"expect,omitempty"`
	// MaxAge bounds the age of an SOA serial which is a date or a Unix time; 0: any.
	MaxAge Duration `json:"max_age,omitempty"`
}

// GRPCCheck passes when grpc.health.v1.Health/Check says SERVING.
type GRPCCheck struct {
	Service string `json:"service,omitempty"` // empty: the server as a whole
	TLS     bool   `json:"tls,omitempty"`
	Host    string `json:"host,omitempty"` // :authority and SNI; default: the service's first name
	Trust
}

// ScriptCheck runs a program of the node: exit 0 is up, 1 down, 2 degraded, and
// anything else says nothing.
type ScriptCheck struct {
	Command string   `json:"command"` // absolute path; no shell
	Args    []string `json:"args,omitempty"`
}

// ComposeCheck is up when Need of its children are; 0 means all. Evidence among
// the children explains and does not count.
type ComposeCheck struct {
	Need   int      `json:"need,omitempty"`
	Checks []string `json:"checks"`
}

// The defaults of a Check: down within 11 s (3 intervals with jitter and a timeout).
const (
	DefaultEvery   = 3 * time.Second
	DefaultTimeout = time.Second
	DefaultRise    = 3
	DefaultFall    = 3
)

// The defaults of a TLSCheck. A date which has passed has passed: it takes one look.
const (
	DefaultTLSEvery   = time.Hour
	DefaultTLSTimeout = 10 * time.Second
	DefaultTLSWarn    = 21 * 24 * time.Hour
	DefaultTLSAlarm   = 7 * 24 * time.Hour
)
