package config

import (
	"encoding/base64"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// checkFile has exactly one kind. Fault has no default: what a failure proves
// decides whether a route may go, and nobody else knows.
type checkFile struct {
	HTTP     *httpFile          `yaml:"http"`
	TLS      *tlsFile           `yaml:"tls"`
	TCP      *tcpFile           `yaml:"tcp"`
	ICMP     *icmpFile          `yaml:"icmp"`
	DNS      *dnsFile           `yaml:"dns"`
	GRPC     *grpcFile          `yaml:"grpc"`
	Script   *scriptFile        `yaml:"script"`
	Of       []string           `yaml:"of"`
	Need     int                `yaml:"need"`
	Invert   bool               `yaml:"invert"`
	Disabled bool               `yaml:"disabled"`
	Fault    placement.Fault    `yaml:"fault"`
	Every    placement.Duration `yaml:"every"`
	Timeout  placement.Duration `yaml:"timeout"`
	Rise     int                `yaml:"rise"`
	Fall     int                `yaml:"fall"`
}

// httpFile mirrors placement.HTTPCheck.
type httpFile struct {
	Path    string             `yaml:"path"`
	Version string             `yaml:"version"`
	TLS     bool               `yaml:"tls"`
	Host    string             `yaml:"host"`
	Expect  []int              `yaml:"expect"`
	Body    string             `yaml:"body"`
	Slow    placement.Duration `yaml:"slow"`
	Verify  string             `yaml:"verify"`
	Pins    []string           `yaml:"pins"`
	CA      string             `yaml:"ca"` // file
}

// tlsFile mirrors placement.TLSCheck.
type tlsFile struct {
	Warn  placement.Duration `yaml:"warn"`
	Alarm placement.Duration `yaml:"alarm"`
	CA    string             `yaml:"ca"` // file
}

// tcpFile mirrors placement.TCPCheck.
type tcpFile struct {
	Send   string `yaml:"send"`
	Expect string `yaml:"expect"`
}

// icmpFile has nothing to say: `icmp: {}`.
type icmpFile struct{}

// dnsFile mirrors placement.DNSCheck.
type dnsFile struct {
	Name   string             `yaml:"name"`
	Type   string             `yaml:"type"`
	Expect string             `yaml:"expect"`
	MaxAge placement.Duration `yaml:"max_age"`
}

// grpcFile mirrors placement.GRPCCheck.
type grpcFile struct {
	Service string   `yaml:"service"`
	TLS     bool     `yaml:"tls"`
	Host    string   `yaml:"host"`
	Verify  string   `yaml:"verify"`
	Pins    []string `yaml:"pins"`
	CA      string   `yaml:"ca"` // file
}

// scriptFile mirrors placement.ScriptCheck.
type scriptFile struct {
	Command string   `yaml:"command"`
	Args    []string `yaml:"args"`
}

// check takes one entry of checks, with its defaults filled in. A timeout not
// shorter than the interval would let looks at one target overlap.
func (b *builder) check(d *document, name string, c checkFile) {
	at := []string{"checks", name}
	out := placement.Check{Name: name, Fault: c.Fault, Invert: c.Invert, Disabled: c.Disabled,
		Every: placement.Duration(c.Every.Or(placement.DefaultEvery)), Timeout: placement.Duration(c.Timeout.Or(placement.DefaultTimeout)),
		Rise: or(c.Rise, placement.DefaultRise), Fall: or(c.Fall, placement.DefaultFall)}
	if kinds := b.kinds(d, at, &c, &out); kinds != 1 {
		d.fail(at, "has %d kinds; want exactly one of http, tls, tcp, icmp, dns, grpc, script, of", kinds)
	}
	d.checkTimes(at, &c, &out)
	if c.Fault != placement.LocalFault && c.Fault != placement.SharedFault && !out.Evidence() {
		d.fail(append(at, "fault"), "want local or shared: what does a failure prove?")
	}
	if out.Invert && (out.TLS != nil || out.ICMP != nil) {
		d.fail(append(at, "invert"), "makes no sense of %s", out.Kind())
	}
	b.out.Checks = append(b.out.Checks, out)
}

// checkTimes checks intervals and counts.
func (d *document) checkTimes(at []string, c *checkFile, out *placement.Check) {
	if c.Of != nil {
		for _, key := range []string{"every", "timeout", "rise", "fall"} {
			if d.has(append(slices.Clone(at), key)...) {
				d.fail(append(at, key), "belongs to the children: a composed check does not look")
			}
		}
		return
	}
	if out.Timeout >= out.Every {
		d.fail(append(at, "timeout"), "%s is not shorter than the interval of %s", out.Timeout, out.Every)
	}
	if out.ICMP != nil && out.Timeout.D() < 300*time.Millisecond {
		d.fail(append(at, "timeout"), "%s is too short for three echoes 100 ms apart: want 300ms at least", out.Timeout)
	}
	if out.Rise < 1 || out.Fall < 1 {
		d.fail(at, "rise and fall must be at least 1")
	}
}

// kinds takes what is probed, and counts the kinds.
func (b *builder) kinds(d *document, at []string, c *checkFile, out *placement.Check) (n int) {
	below := func(key string) []string { return append(slices.Clone(at), key) }
	if c.HTTP != nil {
		n++
		out.HTTP = b.http(d, below("http"), c.HTTP)
	}
	if c.TLS != nil {
		n++
		b.tls(d, below("tls"), c, out)
	}
	if t := c.TCP; t != nil {
		n++
		out.TCP = &placement.TCPCheck{Send: t.Send, Expect: t.Expect}
		if t.Send != "" && t.Expect == "" {
			d.fail(append(below("tcp"), "send"), "without expect nothing is learned by it")
		}
	}
	if c.ICMP != nil {
		n++
		out.ICMP = &placement.ICMPCheck{}
	}
	if c.DNS != nil {
		n++
		out.DNS = d.dns(below("dns"), c.DNS)
	}
	if g := c.GRPC; g != nil {
		n++
		out.GRPC = &placement.GRPCCheck{Service: g.Service, TLS: g.TLS, Host: g.Host,
			Trust: b.trust(d, below("grpc"), g.TLS, g.Verify, g.Pins, g.CA)}
	}
	if c.Script != nil {
		n++
		out.Script = d.script(below("script"), c.Script)
	}
	if d.has(below("of")...) {
		n++
		out.Of = d.compose(at, c)
	} else if c.Need != 0 {
		d.fail(below("need"), "belongs to of: how many of them must be up?")
	}
	return n
}

func (b *builder) http(d *document, at []string, h *httpFile) *placement.HTTPCheck {
	out := &placement.HTTPCheck{Path: or(h.Path, "/"), Version: or(h.Version, "1.1"), TLS: h.TLS, Host: h.Host, Expect: h.Expect, Body: h.Body, Slow: h.Slow,
		Trust: b.trust(d, at, h.TLS, h.Verify, h.Pins, h.CA)}
	if !strings.HasPrefix(out.Path, "/") {
		d.fail(append(at, "path"), "%q does not begin with /", h.Path)
	}
	if out.Version != "1.1" && out.Version != "2" {
		d.fail(append(at, "version"), "%q: want \"1.1\" or \"2\"", h.Version)
	}
	for _, s := range h.Expect {
		if s < 200 || s > 599 {
			d.fail(append(at, "expect"), "%d is no status of an answer (RFC 9110, 15)", s)
		}
	}
	return out
}

// trust takes the three keys that say which certificate is good.
func (b *builder) trust(d *document, at []string, tls bool, verify string, pins []string, ca string) placement.Trust {
	out := placement.Trust{Verify: verify, Pins: pins}
	key := func(k string) []string { return append(slices.Clone(at), k) }
	if !slices.Contains([]string{"", "chain", "pin", "skip"}, verify) {
		d.fail(key("verify"), "%q: want chain, pin or skip", verify)
	}
	if (verify == "pin") != (len(pins) > 0) {
		d.fail(key("verify"), "pins and verify: pin go together")
	}
	for _, p := range pins {
		if sum, err := base64.StdEncoding.DecodeString(p); err != nil || len(sum) != 32 {
			d.fail(key("pins"), "%q is not the base64 of a SHA-256 (RFC 7469, 2.4)", p)
		}
	}
	if ca != "" {
		out.CA = b.authorities(d, key("ca"), ca)
		if verify == "pin" || verify == "skip" {
			d.fail(key("ca"), "is not asked under verify: %s", verify)
		}
	}
	if !tls {
		for _, k := range []string{"verify", "pins", "ca"} {
			if d.has(key(k)...) {
				d.fail(key(k), "needs tls: true")
			}
		}
	}
	return out
}

// authorities reads a file of certificates, which travels inside the fleet: a path
// would mean another file on each node.
func (b *builder) authorities(d *document, at []string, file string) string {
	pem, err := b.read(resolve(d.dir, file))
	switch {
	case err != nil:
		d.fail(at, "%s", rootCause(err))
	case !strings.Contains(string(pem), "-----BEGIN CERTIFICATE-----"):
		d.fail(at, "%s holds no certificate in PEM", file)
	}
	return string(pem)
}

// tls takes a check of dates. It looks rarely, and what it finds is certain, so that
// its defaults are its own.
func (b *builder) tls(d *document, at []string, c *checkFile, out *placement.Check) {
	t := &placement.TLSCheck{Warn: placement.Duration(c.TLS.Warn.Or(placement.DefaultTLSWarn)), Alarm: placement.Duration(c.TLS.Alarm.Or(placement.DefaultTLSAlarm))}
	if c.TLS.CA != "" {
		t.CA = b.authorities(d, append(slices.Clone(at), "ca"), c.TLS.CA)
	}
	if t.Alarm >= t.Warn {
		d.fail(append(at, "alarm"), "%s is not shorter than warn, %s", t.Alarm, t.Warn)
	}
	out.TLS = t
	out.Every, out.Timeout = placement.Duration(c.Every.Or(placement.DefaultTLSEvery)), placement.Duration(c.Timeout.Or(min(placement.DefaultTLSTimeout, c.Every.Or(placement.DefaultTLSEvery)/2)))
	out.Rise, out.Fall = or(c.Rise, 1), or(c.Fall, 1)
}

func (d *document) dns(at []string, q *dnsFile) *placement.DNSCheck {
	out := &placement.DNSCheck{Name: fqdn(q.Name), Type: strings.ToUpper(or(q.Type, "SOA")), Expect: q.Expect, MaxAge: q.MaxAge}
	if !slices.Contains(dnsTypes(), out.Type) {
		d.fail(append(at, "type"), "%q: want one of %s", q.Type, strings.Join(dnsTypes(), ", "))
	}
	if q.MaxAge > 0 && out.Type != "SOA" {
		d.fail(append(at, "max_age"), "needs type SOA: the age is that of the serial")
	}
	return out
}

// dnsTypes are the record types that a check may ask for.
func dnsTypes() []string {
	return []string{"SOA", "NS", "A", "AAAA", "CNAME", "TXT", "MX", "SRV", "SVCB", "HTTPS", "CAA", "PTR", "DNSKEY"}
}

func (d *document) script(at []string, s *scriptFile) *placement.ScriptCheck {
	if !filepath.IsAbs(s.Command) || filepath.Clean(s.Command) != s.Command {
		d.fail(append(at, "command"), "%q is not an absolute path; arguments stand in args, and there is no shell", s.Command)
	}
	for _, a := range s.Args {
		if strings.ContainsRune(a, 0) {
			d.fail(append(at, "args"), "%q holds a zero byte, which no program can be given", a)
		}
	}
	return &placement.ScriptCheck{Command: s.Command, Args: s.Args}
}

func (d *document) compose(at []string, c *checkFile) *placement.ComposeCheck {
	switch {
	case len(c.Of) == 0:
		d.refuse(placement.RuleEmptySelector, append(at, "of"), "names no check")
	case c.Need < 0 || c.Need > len(c.Of):
		d.fail(append(at, "need"), "%d of %d checks", c.Need, len(c.Of))
	}
	for i, name := range c.Of {
		if slices.Contains(c.Of[:i], name) {
			d.fail(append(at, "of"), "%q stands twice: it would count twice", name)
		}
	}
	return &placement.ComposeCheck{Need: c.Need, Checks: c.Of}
}

// referCheck checks the check that a cluster or a service names. One that is only
// evidence judges nobody; neither do the dates of certificates alone tell whether
// anything is served.
func (b *builder) referCheck(d *document, at []string, name string) {
	if name == "" {
		return
	}
	f := &b.out.Fleet
	c := f.Check(name)
	switch {
	case c == nil:
		d.fail(at, "there is no check %q", name)
	case !b.judges(c, 0):
		d.fail(at, "%q is evidence alone (icmp): it never judges a service; put it beside another check with of", name)
	}
}

// judges tells whether a check can find anything up or down.
func (b *builder) judges(c *placement.Check, depth int) bool {
	if c.Of == nil || depth > maxNested {
		return !c.Evidence()
	}
	return slices.ContainsFunc(c.Of.Checks, func(name string) bool {
		child := b.out.Check(name)
		return child == nil || b.judges(child, depth+1) // a missing one is a mistake of its own
	})
}

// maxNested is how deep checks may be composed of composed ones.
const maxNested = 7

// referChildren checks what a composed check names: each is there, enough of them
// count, and no chain of them leads back.
func (b *builder) referChildren(c *placement.Check) {
	if c.Of == nil {
		return
	}
	d, at := b.where("checks", c.Name)
	counting := 0
	for _, name := range c.Of.Checks {
		child := b.out.Check(name)
		switch {
		case child == nil:
			d.fail(append(slices.Clone(at), "of"), "there is no check %q", name)
		case b.leads(child, c.Name, 0):
			d.fail(append(slices.Clone(at), "of"), "%q leads back to %q, or is nested more than %d deep", name, c.Name, maxNested)
		case !child.Evidence():
			counting++
		}
	}
	if c.Of.Need > counting && len(c.Of.Checks) >= c.Of.Need {
		d.fail(append(slices.Clone(at), "need"), "%d, but only %d of the checks count: icmp is evidence", c.Of.Need, counting)
	}
}

// leads tells whether a check is, or is composed of, the one of that name.
func (b *builder) leads(c *placement.Check, to string, depth int) bool {
	if c.Name == to || depth >= maxNested {
		return true
	}
	if c.Of == nil {
		return false
	}
	return slices.ContainsFunc(c.Of.Checks, func(name string) bool {
		child := b.out.Check(name)
		return child != nil && b.leads(child, to, depth+1)
	})
}
