//go:build e2e

package authdns

import (
	"sync/atomic"
	"testing"
	"time"

	"rhumb/authdns/dnssec"
	"rhumb/placement"
)

// The second servers of root and test. beside rootAddr and tldAddr.
const (
	rootAddr2 = "192.0.2.57"
	tldAddr2  = "192.0.2.58"
)

// tidyFiles are zones as an operator keeps them: two servers each, with glue, and
// timers that nobody has anything against. What is odd is in the other fixture.
var tidyFiles = map[string]string{
	".": `@ SOA a.root. hostmaster.test. 1 14400 3600 1209600 3600
@ NS a.root.
@ NS b.root.
a.root. A ` + rootAddr + `
b.root. A ` + rootAddr2 + `
test. NS a.ns.test.
test. NS b.ns.test.
a.ns.test. A ` + tldAddr + `
b.ns.test. A ` + tldAddr2 + "\n",
	"test.": `@ SOA a.ns hostmaster 1 14400 3600 1209600 3600
@ NS a.ns
@ NS b.ns
a.ns A ` + tldAddr + `
b.ns A ` + tldAddr2 + `
demo NS a.ns.demo
demo NS b.ns.demo
a.ns.demo A 192.0.2.1
a.ns.demo AAAA 2001:db8:53::1
b.ns.demo A 192.0.2.2
b.ns.demo AAAA 2001:db8:53::2
`,
	"demo.test.": `@ SOA a.ns hostmaster 1 14400 3600 1209600 3600
@ NS a.ns
@ NS b.ns
@ MX 10 www
a.ns A 192.0.2.1
a.ns AAAA 2001:db8:53::1
b.ns A 192.0.2.2
b.ns AAAA 2001:db8:53::2
www A 192.0.2.10
alias CNAME www.cdn
a.b.ent A 192.0.2.11
*.wild A 192.0.2.12
*.cw CNAME www
`,
	"cdn.demo.test.": `@ SOA ns-ams1 hostmaster.demo.test. 1 14400 3600 1209600 3600
@ NS ns-ams1
@ NS ns-nyc1
@ MX 0 .
ns-ams1 A 198.51.100.9
ns-nyc1 A 198.51.100.73
alias CNAME www
`,
}

// tidy is a signed internet of four zones whose clock and keys a test may change.
type tidy struct {
	lag       atomic.Int64 // by which its clock is slow, in nanoseconds
	root, tld *Server
	nodes     []*Server // both levels, as at ams1, nyc1 and tyo1
	keys      map[string][]*dnssec.Key
	ds        string // what test. says of demo.test.
}

// now is the clock of all its servers. It is slow and never fast, so that a validator
// with the true time believes whatever they sign.
func (w *tidy) now() time.Time { return time.Now().Add(-time.Duration(w.lag.Load())) }

// buildTidy starts it in the network namespace that we are in. The steered zone has
// one key for everything, and all others one for keys and one for data.
func buildTidy(t *testing.T, lag time.Duration) *tidy {
	t.Helper()
	for _, a := range []string{rootAddr2, tldAddr, tldAddr2} {
		run(t, "ip", "addr", "add", a+"/32", "dev", "lo")
	}
	run(t, "ip", "addr", "add", "2001:db8:53::2/128", "dev", "lo", "nodad")
	w := &tidy{keys: make(map[string][]*dnssec.Key)}
	w.lag.Store(int64(lag))
	for name := range tidyFiles {
		w.keys[name] = keysOf(t, name, name == "cdn.demo.test.")
	}
	w.ds = dsLines(t, w.keys["demo.test."])
	w.root = w.serve(t, "", loopback(top, rootAddr+":53"), loopback(top, rootAddr2+":53"))
	w.tld = w.serve(t, "", loopback(top, tldAddr+":53"), loopback(top, tldAddr2+":53"))
	w.nodes = []*Server{
		w.serve(t, "ams1", loopback(top, "192.0.2.1:53"), loopback(top, "[2001:db8:53::1]:53"), loopback(low, "198.51.100.9:53"), loopback(low, "[2001:db8:a::9]:53")),
		w.serve(t, "nyc1", loopback(top, "192.0.2.2:53"), loopback(top, "[2001:db8:53::2]:53"), loopback(low, "198.51.100.73:53"), loopback(low, "[2001:db8:b::9]:53")),
		w.serve(t, "tyo1", loopback(low, "198.51.100.137:53"), loopback(low, "[2001:db8:c::9]:53")),
	}
	w.publish(t, w.root, w.source(".", dsLines(t, w.keys["test."])))
	w.publish(t, w.tld, w.source("test.", w.ds))
	snap := fleet(t, plan{})
	for _, s := range w.nodes {
		w.deliver(t, s)
		s.Apply(t.Context(), snap)
	}
	return w
}

func (w *tidy) serve(t *testing.T, site string, listeners ...Listener) *Server {
	t.Helper()
	return start(t, Config{Site: site, Workers: 1, Now: w.now, Listeners: listeners})
}

// source is a zone of its file and more lines, with the keys that it has now.
func (w *tidy) source(name, more string) Source {
	return signedSource(name, w.keys[name], tidyFiles[name]+more)
}

func (w *tidy) publish(t *testing.T, s *Server, zones ...Source) {
	t.Helper()
	if errs := s.SetZones(zones); errs != nil {
		t.Fatal(errs)
	}
}

// deliver brings the keys of today to a node: demo.test on the top level, and
// cdn.demo.test on the low one, of whose keys demo.test tells by itself.
func (w *tidy) deliver(t *testing.T, s *Server) {
	t.Helper()
	cdn := w.source("cdn.demo.test.", "")
	cdn.Zone.Level, cdn.Zone.NameServers = placement.LowLevel, "ns"
	demo := w.source("demo.test.", "")
	demo.Zone.Level = placement.TopLevel
	w.publish(t, s, demo, cdn)
}

// servers are all of them.
func (w *tidy) servers() []*Server { return append([]*Server{w.root, w.tld}, w.nodes...) }

// goTo sets the clock and has every server notice, as it does each half minute.
func (w *tidy) goTo(when time.Time) {
	w.lag.Store(int64(time.Since(when)))
	for _, s := range w.servers() {
		s.turn()
	}
}
