package config

import (
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// TestChecksAreTaken: each key arrives where the probers read it, and what was
// left out has its default.
func TestChecksAreTaken(t *testing.T) {
	f, err := LoadFleet("testdata/good/checks/fleet.yaml", readZone)
	if err != nil {
		t.Fatal(err)
	}
	front := f.Check("front")
	h := front.HTTP
	if h == nil || h.Version != "2" || !h.TLS || h.Slow.D() != 300*time.Millisecond || h.Body != "ok" || len(h.Expect) != 1 || !strings.Contains(h.CA, "BEGIN CERTIFICATE") {
		t.Errorf("front: %+v", h)
	}
	if front.Every.D() != 3*time.Second || front.Timeout.D() != time.Second || front.Rise != 3 || front.Fall != 3 {
		t.Errorf("the defaults of a check: %+v", front)
	}
	cert := f.Check("cert")
	if cert.TLS == nil || cert.TLS.Warn.D() != 480*time.Hour || cert.TLS.Alarm.D() != 72*time.Hour || cert.Every.D() != time.Hour || cert.Fall != 1 || cert.TLS.CA == "" {
		t.Errorf("cert: %+v %+v", cert, cert.TLS)
	}
	if of := f.Check("web").Of; of == nil || of.Need != 3 || len(of.Checks) != 5 {
		t.Errorf("web: %+v", of)
	}
	if s := f.Check("dates").Script; s == nil || s.Command != "/usr/lib/rhumb/checks/dates" || len(s.Args) != 1 {
		t.Errorf("dates: %+v", s)
	}
	if g := f.Check("rpc").GRPC; g == nil || g.Service != "shop.Cart" || g.Verify != "skip" || g.Host != "rpc.cdn.demo.test" {
		t.Errorf("rpc: %+v", g)
	}
	if p := f.Check("pinned").HTTP; p.Verify != "pin" || len(p.Pins) != 1 {
		t.Errorf("pinned: %+v", p)
	}
	if z := f.Check("zone"); !z.Disabled || z.DNS.MaxAge.D() != 36*time.Hour || z.DNS.Type != "SOA" {
		t.Errorf("zone: %+v", z)
	}
	kinds := map[string]string{"front": "https", "ping": "icmp", "cert": "tls", "dates": "script", "closed": "tcp", "rpc": "grpc", "zone": "dns", "web": "of"}
	for name, want := range kinds {
		if c := f.Check(name); c.Kind() != want || c.Evidence() != (want == "icmp") {
			t.Errorf("%s: kind %q, evidence %v", name, c.Kind(), c.Evidence())
		}
	}
	if !f.Check("closed").Invert || f.Check("ping").Fault != placement.NoFault {
		t.Error("invert of closed, or no fault of ping")
	}
}
