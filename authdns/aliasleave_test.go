package authdns

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// leavingAliases are the fixture's zones with aliases of every kind, for who may copy them.
func leavingAliases(serial string) []Source {
	src := leaving(strings.Replace(demoZone, "hostmaster 5 ", "hostmaster "+serial+" ", 1))
	src[0].Zone.Aliases = append(aliased()[0].Zone.Aliases, placement.Alias{Name: "below.demo.test.", Target: "a.old.demo.test."})
	src[0].Zone.Transfer = &placement.Transfer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	return src
}

// teller is a resolver whose answers a test changes, with a clock that makes it ask again.
type teller struct {
	mu      sync.Mutex
	answers map[string][]string
	late    time.Duration
}

func (r *teller) ask(ctx context.Context, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers == nil {
		return nil, context.DeadlineExceeded
	}
	return (&resolverOf{answers: r.answers}).ask(ctx, server, q)
}

func (r *teller) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.late)
}

// tell has all targets looked up again after a time, which then have these addresses.
func (r *teller) tell(o *outside, pass time.Duration, answers map[string][]string) {
	r.mu.Lock()
	r.answers, r.late = answers, r.late+pass
	r.mu.Unlock()
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// TestTransferAliases: in a copy an alias is a set of addresses: of a steered name its static set,
// of a name of ours what that has, of others what they had when the version was made. What
// they have never told keeps the version back; what they say later changes none.
func TestTransferAliases(t *testing.T) {
	told := &teller{}
	s, err := New(Config{Site: self.Site, Node: self.Node, Workers: 1, Now: told.now, Listeners: []Listener{loopback(low, "127.0.0.1:0")}, Transfers: desk(t),
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
	if err != nil {
		t.Fatal(err)
	}
	s.self.outside.ask = told.ask
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	set := func(src []Source) {
		t.Helper()
		if errs := s.SetZones(src); errs != nil {
			t.Fatal(errs)
		}
	}
	// has waits until the copies of a serial have these records, one name a line.
	has := func(serial string, wants ...string) {
		t.Helper()
		var got string
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if got = s.copiedAs(t, serial, wants); got == "" {
				return
			}
		}
		t.Fatal(got)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	set(leavingAliases("5"))
	if _, err := copyZone(t, s, axfr("demo.test."), ""); err == nil {
		t.Error("a zone left before the targets of its aliases were known")
	}
	const steered = "20 A 198.51.100.10, 20 A 198.51.100.11, 20 A 198.51.100.12, 20 A 198.51.100.138, 20 A 198.51.100.74, 20 AAAA 2001:db8:a::10, 20 AAAA 2001:db8:b::10, 20 AAAA 2001:db8:b::11"
	answers := map[string][]string{"A": {"www.other.test. 60 A 192.0.2.77", "x.sub.demo.test. 60 A 192.0.2.70"}, "AAAA": {"www.other.test. 60 AAAA 2001:db8::77"}}
	told.tell(s.self.outside, time.Hour, answers)
	before := "others.demo.test. 60 A 192.0.2.77, 60 AAAA 2001:db8::77"
	has("5", "demo.test. "+steered, "wild.demo.test. "+steered, "static.demo.test. 3600 A 192.0.2.10", "again.demo.test. 3600 A 192.0.2.10",
		"none.demo.test. ", "ring1.demo.test. ", before, "chain.demo.test. 60 A 192.0.2.77, 60 AAAA 2001:db8::77",
		"sub2.demo.test. 60 A 192.0.2.70", "below.demo.test. 3600 A 192.0.2.13")
	answers = map[string][]string{"A": {"www.other.test. 60 A 192.0.2.78", "x.sub.demo.test. 60 A 192.0.2.70"}, "AAAA": answers["AAAA"]}
	told.tell(s.self.outside, time.Hour, answers)
	for {
		if got := show(s.current.Load().reply(t, ask(t, "others.demo.test. A"), from(euResolver, top))); strings.Contains(got, "192.0.2.78") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if got := s.copiedAs(t, "5", []string{before}); got != "" {
		t.Errorf("a version has changed: %s", got)
	}
	set(leavingAliases("6"))
	after := "others.demo.test. 60 A 192.0.2.78, 60 AAAA 2001:db8::77"
	has("6", after)
	// A target that was never resolved keeps a new version back, and the one before is handed out.
	src := leavingAliases("7")
	src[0].Zone.Aliases = append(src[0].Zone.Aliases, placement.Alias{Name: "new.demo.test.", Target: "new.other.test."})
	set(src)
	if got := s.copiedAs(t, "6", []string{"new.demo.test. ", after}); got != "" {
		t.Errorf("the version before: %s", got)
	}
	// The others are not known any more, and stay in it as they were.
	told.tell(s.self.outside, outsideHard+time.Hour, map[string][]string{"A": {"new.other.test. 60 A 192.0.2.79"}})
	has("7", "new.demo.test. 60 A 192.0.2.79", after)
	m := new(dns.Msg)
	m.SetIxfr("demo.test.", 6, "a.ns.demo.test.", "hostmaster.demo.test.")
	if got, err := copyZone(t, s, m, ""); err != nil || len(got) != 5 || !strings.Contains(got[3], "192.0.2.79") {
		t.Errorf("the difference: %v, %v", got, err)
	}
}

// copiedAs says how a copy of demo.test differs from a serial and from addresses that names
// are to have, each "NAME TTL TYPE ADDRESS, …" in order; "" where it does not.
func (s *Server) copiedAs(t *testing.T, serial string, wants []string) (differs string) {
	t.Helper()
	all, err := copyZone(t, s, axfr("demo.test."), "")
	if err != nil {
		return err.Error()
	}
	got := make(map[string][]string)
	for _, line := range all {
		if f := strings.Fields(line); f[3] == "A" || f[3] == "AAAA" {
			got[f[0]] = append(got[f[0]], f[1]+" "+f[3]+" "+f[4])
		} else if f[3] == "SOA" && f[6] != serial {
			return "serial " + f[6] + ", want " + serial
		}
	}
	for _, want := range wants {
		name, list, _ := strings.Cut(want, " ")
		slices.Sort(got[name])
		if text := strings.Join(got[name], ", "); text != list {
			return name + ": " + text + "\nwant " + list
		}
	}
	return ""
}
