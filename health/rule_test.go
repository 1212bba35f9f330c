package health

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// letters writes states as tests do: u unknown, U up, S degraded (slow), D down.
var letters = map[byte]placement.State{'u': placement.Unknown, 'U': placement.Up, 'S': placement.Degraded, 'D': placement.Down}

// composed makes an inventory with a check of n leaves (c0, c1, …), of which those
// named in icmp are echoes, and returns its rule.
func composed(n, need int, invert bool, icmp string) Rule {
	inv := &placement.Inventory{}
	all := placement.Check{Name: "all", Of: &placement.ComposeCheck{Need: need}, Invert: invert}
	for i := range n {
		c := placement.Check{Name: fmt.Sprintf("c%d", i), TCP: &placement.TCPCheck{}}
		if strings.Contains(icmp, c.Name) {
			c.TCP, c.ICMP = nil, &placement.ICMPCheck{}
		}
		all.Of.Checks = append(all.Of.Checks, c.Name)
		inv.Checks = append(inv.Checks, c)
	}
	return ruleOf(inv, &all, 0)
}

func seen(states string) func(string) finding {
	return func(check string) finding {
		i := int(check[1] - '0')
		f := finding{state: letters[states[i]]}
		if f.state == placement.Down || f.state == placement.Degraded {
			f.cause = check + " failed"
		}
		return f
	}
}

// TestNOfM: states of the children, how many must be up, and what is made of it.
func TestNOfM(t *testing.T) {
	for _, c := range []struct {
		states string
		need   int
		want   byte
	}{
		{"UUU", 0, 'U'}, {"UUD", 0, 'D'}, {"UUD", 2, 'U'}, {"UDD", 2, 'D'}, {"UDD", 1, 'U'}, {"DDD", 1, 'D'},
		{"UUu", 0, 'U'},                  // a child that never ran does not hold back the others
		{"uuu", 0, 'u'}, {"Duu", 2, 'u'}, // it may yet come
		{"Duu", 0, 'D'},                 // whatever comes, not all are up
		{"uDD", 1, 'u'}, {"uD", 0, 'D'}, // unknown is never down by itself
		{"USS", 2, 'S'}, {"UUS", 2, 'U'}, {"SD", 1, 'S'}, {"SD", 0, 'D'}, {"Su", 0, 'S'},
		{"U", 1, 'U'}, {"D", 0, 'D'}, {"", 0, 'u'},
	} {
		r := composed(len(c.states), c.need, false, "")
		if f := r.judge(seen(c.states)); f.state != letters[c.want] {
			t.Errorf("%d of %q is %v, want %v", c.need, c.states, f.state, letters[c.want])
		}
	}
}

// TestUnknownNeverDown: for every combination of five children and every number,
// taking the unknown ones for up never gives less than what the rule says: no
// verdict down rests on a check that never ran.
func TestUnknownNeverDown(t *testing.T) {
	const word = "uUSD"
	for n := range 4 * 4 * 4 * 4 {
		states := string([]byte{word[n%4], word[n/4%4], word[n/16%4], word[n/64%4]})
		hopeful := strings.ReplaceAll(states, "u", "U")
		for need := range 5 {
			r := composed(4, need, false, "")
			have, best := r.judge(seen(states)).state, r.judge(seen(hopeful)).state
			if have == placement.Down && best != placement.Down {
				t.Errorf("%d of %s is down; the unknown ones could still save it", need, states)
			}
			if !strings.Contains(states, "u") {
				up := 4 - strings.Count(states, "D")
				if want := need; want == 0 && up < 4 || want > 0 && up < want {
					if have != placement.Down {
						t.Errorf("%d of %s is %v, want down", need, states, have)
					}
				} else if have == placement.Down || have == placement.Unknown {
					t.Errorf("%d of %s is %v", need, states, have)
				}
			}
		}
	}
}

func TestInvertedRule(t *testing.T) {
	for states, want := range map[string]byte{"UU": 'D', "UD": 'U', "uu": 'u', "SS": 'D'} {
		r := composed(2, 0, true, "")
		if f := r.judge(seen(states)); f.state != letters[want] {
			t.Errorf("not all of %s is %v, want %v", states, f.state, letters[want])
		}
	}
}

// TestEchoesNeverJudge: whatever the echoes say, the state is that of the rest; a
// failure is told with what they saw.
func TestEchoesNeverJudge(t *testing.T) {
	for _, rest := range []string{"U", "D", "S", "u"} {
		for _, echo := range []string{"U", "D", "u"} {
			for need := range 2 {
				r := composed(2, need, false, "c1")
				f := r.judge(seen(rest + echo))
				if f.state != letters[rest[0]] {
					t.Errorf("%s with echoes %s is %v", rest, echo, f.state)
				}
				if rest == "D" && echo == "U" && !strings.Contains(f.cause, "there is a path") {
					t.Errorf("cause %q does not tell what the echoes saw", f.cause)
				}
				if rest == "D" && echo == "D" && !strings.Contains(f.cause, "c1 failed") {
					t.Errorf("cause %q does not tell what the echoes saw", f.cause)
				}
			}
		}
	}
	if f := (&Rule{Of: composed(1, 0, false, "c0").Of}).judge(seen("D")); f.state != placement.Unknown {
		t.Errorf("echoes alone say %v", f.state)
	}
}

// TestRuleOfInventory: disabled and missing children are as if they were not named,
// and a fleet that names itself ends.
func TestRuleOfInventory(t *testing.T) {
	inv := &placement.Inventory{}
	inv.Checks = []placement.Check{
		{Name: "a", TCP: &placement.TCPCheck{}},
		{Name: "loop", Of: &placement.ComposeCheck{Checks: []string{"a", "loop"}}},
		{Name: "off", TCP: &placement.TCPCheck{}, Disabled: true},
		{Name: "web", Of: &placement.ComposeCheck{Checks: []string{"a", "gone", "off"}}},
	}
	inv.Sites = []placement.Site{{Name: "ams1", Clusters: []placement.Cluster{
		{Name: "dark", Check: "off", Addresses: []netip.AddrPort{addrOf(0)}},
		{Name: "web", Check: "web", Addresses: []netip.AddrPort{addrOf(0), addrOf(1)}},
	}}}
	probes := Probes(inv, "ams1")
	if len(probes) != 1 || len(probes[0].Targets) != 2 || len(probes[0].Rule.Of) != 1 {
		t.Errorf("%+v", probes)
	}
	r := ruleOf(inv, inv.Check("loop"), 0)
	if n := len(r.leaves(nil)); n == 0 || n > 2*maxDepth {
		t.Errorf("a rule that names itself has %d leaves", n)
	}
}

// TestBlindChecksLetGo: a cluster that was voted down, and whose checks were then
// changed to some that cannot see, is unknown again: nobody stays out for ever
// because nothing looks.
func TestBlindChecksLetGo(t *testing.T) {
	var votes []placement.Vote
	a := New(Config{Node: "ams1-a", Site: "ams1", Sink: func(v placement.Vote) { votes = append(votes, v) }, Log: quiet()})
	id := placement.ClusterID{Site: "ams1", Name: "web"}
	see := func(check placement.Check, r Result) {
		a.looked(look{Target{Object: id, Address: addrOf(0), Check: check}, r})
	}
	put := func(check placement.Check) {
		c := newCluster(Probe{Object: id, Targets: []Target{{Object: id, Address: addrOf(0), Check: check}}})
		c.inherit(a.clusters[id])
		a.clusters[id] = c
		a.cast(c)
	}
	tcp, script := placement.Check{Name: "tcp", TCP: &placement.TCPCheck{}, Rise: 1, Fall: 2}, placement.Check{Name: "script", Script: &placement.ScriptCheck{}, Rise: 1, Fall: 2}
	put(tcp)
	see(tcp, look1(false))
	see(tcp, look1(false))
	put(script)
	see(script, blind("forbidden", "no"))
	if len(votes) != 1 || votes[0].State != placement.Down {
		t.Fatalf("%+v: the old word stands until the new check had its looks", votes)
	}
	for range 3 {
		see(script, blind("forbidden", "no"))
	}
	if len(votes) != 2 || votes[1].State != placement.Unknown {
		t.Fatalf("%+v", votes)
	}
	see(script, look1(true))
	if len(votes) != 3 || votes[2].State != placement.Up {
		t.Errorf("%+v", votes)
	}
}

// TestComposedCluster: the parts of an address have a damper each, and the cause
// says which check failed.
func TestComposedCluster(t *testing.T) {
	front, cert := placement.Check{Name: "front", HTTP: &placement.HTTPCheck{}, Rise: 1, Fall: 2}, placement.Check{Name: "cert", TLS: &placement.TLSCheck{}, Rise: 1, Fall: 1}
	p := Probe{Rule: Rule{Of: []Rule{{Check: &front}, {Check: &cert}}}, Fault: placement.SharedFault}
	for _, c := range []*placement.Check{&front, &cert} {
		p.Targets = append(p.Targets, Target{Address: addrOf(0), Check: *c})
	}
	c := newCluster(p)
	for i, step := range []struct {
		check, state string
		r            Result
		cause        string
	}{
		{"front", "up", look1(true), ""},
		{"cert", "up", Result{State: placement.Up, Kind: "warn", Cause: "ends in 20 days"}, ""},
		{"front", "up", look1(false), ""},
		{"cert", "up", blind("refused", "refused"), ""}, // a certificate nobody can see is no news
		{"front", "down", look1(false), "192.0.2.1:80: front: refused"},
		{"front", "up", look1(true), ""},
		{"cert", "down", failed("expired", "ended 1 h ago"), "192.0.2.1:80: cert: ended 1 h ago"},
	} {
		step.r.At = time.Unix(int64(i)*60, 0) // so that no penalty keeps it out
		c.feed(addrOf(0), step.check, step.r)
		if state, cause := c.state(); state.String() != step.state || cause != step.cause {
			t.Errorf("after %s %v: %v (%s), want %s (%s)", step.check, step.r.State, state, cause, step.state, step.cause)
		}
	}
	if c.feed(addrOf(0), "gone", look1(false)) || c.fault != placement.SharedFault {
		t.Error("a check that is not of the rule moved something, or the rule's fault is lost")
	}
}

// TestDamperDegrades: S is a degraded look, u one that could not see.
func TestDamperDegrades(t *testing.T) {
	for _, c := range []struct{ looks, want string }{
		{"S", "S"}, {"USS", "UUU"}, {"USSS", "UUUS"}, {"USSSUUU", "UUUSSSU"}, {"USSSUSUUU", "UUUSSSSSU"},
		{"SDDD", "SSSD"}, {"DDDSSS", "uuDDDS"}, {"DDDSSU", "uuDDDU"}, {"UDuDuD", "UUUUUD"}, {"uuu", "uuu"}, {"DDDuUUU", "uuDDDDU"},
	} {
		d, have := newDamper(3, 3, 0), ""
		for i := range len(c.looks) {
			d.feed(letters[c.looks[i]], false, time.Unix(int64(i), 0))
			have += map[placement.State]string{placement.Unknown: "u", placement.Up: "U", placement.Degraded: "S", placement.Down: "D"}[d.state]
		}
		if have != c.want {
			t.Errorf("looks %s give %s, want %s", c.looks, have, c.want)
		}
	}
}

// TestSecondEvidence: what clients met makes one failed look enough, takes nothing
// down alone, and is forgotten.
func TestSecondEvidence(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	look := func(c *cluster, ok bool, s int) placement.State {
		r := look1(ok)
		r.At = at(s)
		c.feed(addrOf(0), "", r)
		state, _ := c.state()
		return state
	}
	c := someCluster(1, 3, 3)
	look(c, true, 1)
	c.passive.report(4, "502", at(2))
	if c.passive.bad(at(2)) || look(c, false, 2) != placement.Up {
		t.Error("four errors are evidence")
	}
	c.passive.report(3, "502", at(3))
	if state, _ := c.state(); !c.passive.bad(at(3)) || state != placement.Up {
		t.Error("what clients met took a cluster down alone")
	}
	if look(c, true, 4) != placement.Up || look(c, false, 5) != placement.Down {
		t.Error("with seven errors one failed look is not enough")
	}
	c = someCluster(1, 3, 3)
	look(c, true, 1)
	c.passive.report(9, "502", at(2))
	c.passive.report(0, "", at(3))
	if look(c, false, 4) != placement.Up {
		t.Error("a request that went well is no end of a row")
	}
	c.passive.report(9, "502", at(5))
	if look(c, true, 34) != placement.Up || look(c, false, 36) != placement.Up {
		t.Error("evidence of long ago counts")
	}
}
