package edge

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/fdstore"
	"rhumb/edge/feed"
	"rhumb/edge/frame"
	"rhumb/edge/token"
)

// Kinds and modes of a Service.
const (
	KindContent = "content"
	KindForward = "forward" // another server's sockets: package edge/forward alone
	KindProxy   = "proxy"
	// KindHandoff: sockets of another server that speaks the hand-off protocol.
	KindHandoff = "handoff"

	ModeObserve = "observe"
	ModeAct     = "act"

	// ReviveOff: a service's sessions end with their site or process. Its other
	// settings are ModeObserve, which counts what would be revived, and ModeAct.
	ReviveOff = "off"

	// FreshL0: a session's record goes to its Backup and nobody waits for it.
	FreshL0 = "L0"
	// FreshL1: a response begins when its record is at the Backup, so that a
	// crash costs no client that has seen any of it.
	FreshL1 = "L1"
	// FreshL2: what a client sends is at the Backup before it is acknowledged, too.
	FreshL2 = "L2"
)

// Service is one set of VIPs and what is served there.
type Service struct {
	Name   string
	Kind   string // KindContent; KindForward is left to edge/forward
	Mode   string // ModeObserve: sessions are served and never moved, what would move is counted
	VIPs   []netip.AddrPort
	Root   string // directory; or
	Origin string // base URL of an HTTP origin
	Spool  string // directory for copies of the origin's objects
	// Revival is ReviveOff, ModeObserve or ModeAct; empty is ReviveOff. It acts
	// only where Mode does.
	Revival string
	// Freshness is FreshL0, FreshL1 or, with uploads, FreshL2; empty is FreshL0.
	Freshness string
	Cert      string // file of the certificate chain, and
	Key       string // of its key, PEM; both empty: in clear
	Export    string // ExportNone, ExportSite or ExportGroup; empty: none
	Events    Events // event streams of the origin, over TLS that stays at this site
	Uploads   Uploads
}

// Peer is another edge of the group: a site, or one of the nodes of a site with several.
type Peer struct {
	Name string
	// Of is the site whose certificate it has; empty: Name.
	Of      string
	Control netip.AddrPort // where its agent listens
	Weight  int            // capacity as a Backup, relative; 0 is none
	Domains []string       // failure domains of its site; none: it is its own
}

// Moves paces and bounds hand-offs. Zero values take the defaults named here.
type Moves struct {
	PullAfter   time.Duration // packets strayed here for as long before a pull: 1 s
	FlapHold    time.Duration // a session that left is not pulled back earlier: 3 s
	RestoreRate int           // sessions restored here a second: 20,000
	Deadline    time.Duration // a drain pushes what is left after: 5 min
	Backups     bool          // shadow sessions at a Backup
}

// Limits of a client's connection. Zero values take the defaults.
type Limits struct {
	Header   time.Duration // from a request's first byte to its last: 10 s
	Idle     time.Duration // between requests: 60 s
	Write    time.Duration // without a byte taken by the client: 60 s
	Sessions int           // at this site, all services: 100,000
	Cache    int64         // bytes of checked blocks kept: 256 MiB
	Records  int           // records kept for other sites: 200,000
}

// Strays is what edge needs of the forwarding of foreign packets
// (edge/forward), and all it knows of it.
type Strays interface {
	// Hold keeps the packets of a flow until Release.
	Hold(frame.Key)
	// Claim is Hold for a session that is revived here: other sites send its
	// packets here, and Agent.Heard is told each of them.
	Claim(frame.Key)
	// Release gives held packets to the kernel in order, or drops them if
	// nobody took the flow.
	Release(frame.Key)
	// Moved says that packets of a flow which still come here belong to a
	// site from now on; an empty site takes that back.
	Moved(k frame.Key, to string)
	// Stayed says that a session which was held here did not come, or went without a word
	// that it came there: its packets belong to a site for as long as that does not deny it.
	Stayed(k frame.Key, at string)
}

// Config is what New needs. Peers, Services and the drain change later by the
// Agent's methods.
type Config struct {
	Site string
	// Of is the site of which this edge is a node, Site is then the node's own name;
	// empty: the edge is all of the site.
	Of       string
	Reserve  Reserve        // what it can take over; SetReserve replaces it
	Control  netip.AddrPort // where other sites' agents reach this one
	TLS      *tls.Config    // certificate of this site, CAs of the group
	Peers    []Peer
	Services []Service
	Moves    Moves
	Limits   Limits
	// Addresses makes the agent put the VIPs on lo and take away what it put.
	Addresses bool
	Strays    Strays // nil: nothing holds packets
	// Met is told how each request of a service ended: false for a status of 500 or
	// more. Sessions wait for it. nil: nobody asks.
	Met func(service string, ok bool)
	// OnPrepare is told when something was made ready for the sessions of a suspected site,
	// and how the suspicion ended. It must not block. nil: nobody asks.
	OnPrepare func(Preparation)
	// Store holds sockets while the process dies and another begins; without one sessions are
	// revived from their records then.
	Store fdstore.Config
	// Tokens are the secrets of resumption tokens, the same at all sites; see SetTokens.
	Tokens []token.Secret
	// Handoff is where servers of kind handoff find the agent.
	Handoff Handoff
	// Ledger is a file which remembers, while the machine runs, what other sites handed over
	// here: the process that follows this one answers for it. Empty: nothing is remembered.
	Ledger string
	// Flows lists the established connections to the addresses on this host; nil where
	// there is nobody to ask, and then no drain gives away sessions of kind handoff.
	Flows      func([]netip.AddrPort) ([]frame.Key, error)
	Log        *slog.Logger          // nil: slog.Default
	Registerer prometheus.Registerer // nil: no metrics
}

// ErrKind: a service of a kind which this agent does not serve.
var ErrKind = errors.New("kind is not supported")

func (c Config) check() error {
	switch {
	case c.Site == "":
		return errors.New("edge: config: no site")
	case !c.Control.IsValid():
		return errors.New("edge: config: no control address")
	case c.TLS == nil || len(c.TLS.Certificates) == 0 || c.TLS.RootCAs == nil || c.TLS.ClientCAs == nil:
		return errors.New("edge: config: TLS needs a certificate and the group's CAs for both directions")
	}
	return errors.Join(checkPeers(c.Site, c.Peers), checkServices(c.Services))
}

func checkPeers(site string, peers []Peer) error {
	seen := map[string]bool{site: true}
	for _, p := range peers {
		switch {
		case p.Name == "" || seen[p.Name]:
			return fmt.Errorf("edge: config: peer %q is empty, twice there, or this site", p.Name)
		case !p.Control.IsValid():
			return fmt.Errorf("edge: config: peer %s has no control address", p.Name)
		case p.Weight < 0:
			return fmt.Errorf("edge: config: peer %s has weight %d", p.Name, p.Weight)
		}
		seen[p.Name] = true
	}
	return nil
}

func checkServices(services []Service) error {
	names, ids, vips := map[string]bool{}, map[uint32]string{}, map[netip.AddrPort]string{}
	for _, s := range services {
		if err := s.check(); err != nil {
			return fmt.Errorf("edge: config: service %q: %w", s.Name, err)
		}
		if names[s.Name] || ids[serviceID(s.Name)] != "" {
			return fmt.Errorf("edge: config: service %q: name or its digest is there twice", s.Name)
		}
		names[s.Name], ids[serviceID(s.Name)] = true, s.Name
		for _, v := range s.VIPs {
			if other := vips[v]; other != "" {
				return fmt.Errorf("edge: config: VIP %s is of %q and of %q", v, other, s.Name)
			}
			vips[v] = s.Name
		}
	}
	return nil
}

func (s Service) check() error {
	switch {
	case s.Name == "":
		return errors.New("no name")
	case s.Kind == KindForward:
		return nil
	case s.Kind != KindContent && s.Kind != KindHandoff:
		return fmt.Errorf("kind %q: %w", s.Kind, ErrKind)
	case s.Mode != ModeObserve && s.Mode != ModeAct:
		return fmt.Errorf("mode %q is neither observe nor act", s.Mode)
	case s.Kind == KindHandoff && (s.Root != "" || s.Origin != "" || s.Cert != "" || s.Revival != "" || s.Freshness != ""):
		return errors.New("kind handoff is served by another server: it has VIPs and nothing else")
	case s.Kind == KindContent && (s.Root == "") == (s.Origin == ""):
		return errors.New("needs a root or an origin, and not both")
	case s.Origin != "" && s.Spool == "":
		return errors.New("an origin needs a spool directory")
	case len(s.VIPs) == 0:
		return errors.New("no VIP")
	case s.Freshness != "" && s.Freshness != FreshL0 && s.Freshness != FreshL1 && s.Freshness != FreshL2:
		return fmt.Errorf("freshness %q is neither L0, L1 nor L2", s.Freshness)
	case s.Revival != "" && s.Revival != ReviveOff && s.Revival != ModeObserve && s.Revival != ModeAct:
		return fmt.Errorf("revival %q is neither off, observe nor act", s.Revival)
	}
	if err := errors.Join(s.checkTLS(), s.checkEvents(), s.checkUploads()); err != nil {
		return err
	}
	for _, v := range s.VIPs {
		if !v.IsValid() || v.Port() == 0 || v.Addr().Is4In6() || v.Addr().Zone() != "" {
			return fmt.Errorf("VIP %s", v)
		}
	}
	return nil
}

// revives tells whether sessions of the service go on after a crash.
func (s Service) revives() bool { return s.Mode == ModeAct && s.Revival == ModeAct }

// waits reports whether something of a session waits for its Backup, by its freshness.
func (s Service) waits() bool { return s.Freshness == FreshL1 || s.Freshness == FreshL2 }

// shadows tells whether the records of its sessions are of use: to go on with them, or to
// count those that would.
func (s Service) shadows() bool { return s.Revival == ModeAct || s.Revival == ModeObserve }

func (s Service) checkTLS() error {
	switch {
	case (s.Cert == "") != (s.Key == ""):
		return errors.New("TLS needs a certificate and a key")
	case s.Export != "" && s.Export != ExportNone && s.Export != ExportSite && s.Export != ExportGroup:
		return fmt.Errorf("export %q is neither none, site nor group", s.Export)
	case s.Cert == "" && s.Export != "" && s.Export != ExportNone:
		return errors.New("there are no secrets to export without TLS")
	}
	return nil
}

// checkEvents: a token is a secret, so it travels over TLS alone; and records of ours
// hold responses that are functions of an object, which no event stream is.
func (s Service) checkEvents() error {
	switch p := s.Events.Path; {
	case p == "":
		return nil
	case !feed.IsPath(p):
		return fmt.Errorf("event streams at %q: want a path that begins and ends with a slash", p)
	case s.Origin == "" || s.Cert == "" || s.Export != "" && s.Export != ExportNone:
		return errors.New("event streams need an origin and TLS, and no export of secrets")
	}
	return nil
}

// serviceID is how records name a service; all sites agree on it.
func serviceID(name string) uint32 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint32(sum[:])
}

func (m Moves) withDefaults() Moves {
	m.PullAfter = or(m.PullAfter, time.Second)
	m.FlapHold = or(m.FlapHold, 3*time.Second)
	m.RestoreRate = or(m.RestoreRate, 20000)
	m.Deadline = or(m.Deadline, 5*time.Minute)
	return m
}

func (l Limits) withDefaults() Limits {
	l.Header = or(l.Header, 10*time.Second)
	l.Idle = or(l.Idle, time.Minute)
	l.Write = or(l.Write, time.Minute)
	l.Sessions = or(l.Sessions, 100_000)
	l.Cache = or(l.Cache, 256<<20)
	l.Records = or(l.Records, 200_000)
	return l
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
