package forward

import (
	"net/netip"
	"testing"
	"time"
)

func claimFlow() Flow {
	return Flow{Client: netip.MustParseAddrPort("198.51.100.7:4000"), VIP: netip.MustParseAddrPort("192.0.2.10:443")}
}

// TestShadowedWaits: where a session could be revived, the silence of a site does
// not send its packets back to the kernel; the word of all sites does.
func TestShadowedWaits(t *testing.T) {
	for _, shadowed := range []bool{false, true} {
		b, f := newBench("a"), claimFlow()
		b.shadows = map[Flow]bool{f: shadowed}
		b.owners.packet(b.now, f, []byte("one"), false, nil)
		b.pass(2 * time.Second)
		steps := show(b.tick(b.now, nil))
		if want := map[bool]string{false: "back one", true: "ask a"}[shadowed]; steps != want {
			t.Errorf("shadowed %t: %q, want %q", shadowed, steps, want)
		}
		if !shadowed {
			continue
		}
		b.claim(b.now, f)
		if got := show(b.release(f, nil)); got != "back one" {
			t.Errorf("released %q, want what waited", got)
		}
	}
	for wait, want := range map[time.Duration]string{holdLife - time.Second: "foreign a, tunnel a one", holdLife: ""} {
		b, f := newBench("a"), claimFlow()
		b.shadows = map[Flow]bool{f: true}
		b.owners.packet(b.now, f, []byte("one"), false, nil)
		b.pass(wait)
		b.tick(b.now, nil)
		if got := show(b.mine(b.now, f, "a", nil)); got != want {
			t.Errorf("the owner's word after %v: %q, want %q", wait, got, want)
		}
	}
	b, f := newBench("a"), claimFlow()
	b.shadows = map[Flow]bool{f: true}
	b.owners.packet(b.now, f, []byte("one"), false, nil)
	if got := show(b.notMine(b.now, f, "a", nil)); got != "back one" {
		t.Errorf("after a no: %q, want the packet back", got)
	}
}

// TestClaimedIsTold: each packet of a claimed flow is shown, of a held one none,
// and a claim ends with the release.
func TestClaimedIsTold(t *testing.T) {
	b, f := newBench("a"), claimFlow()
	b.hold(b.now, f)
	if steps := b.owners.packet(b.now, f, []byte("one"), false, nil); len(steps) != 0 || b.claims(f) {
		t.Errorf("held: %d steps, claims %t", len(steps), b.claims(f))
	}
	b.claim(b.now, f)
	steps := b.owners.packet(b.now, f, []byte("two"), false, nil)
	if len(steps) != 1 || steps[0].do != doHeld || string(steps[0].packet) != "two" || !b.claims(f) {
		t.Errorf("claimed: %+v, claims %t", steps, b.claims(f))
	}
	if got := show(b.release(f, nil)); got != "back one, back two" || b.claims(f) {
		t.Errorf("released %q, claims %t", got, b.claims(f))
	}
}

// TestLostOwner: after the word that a site is down its flows are asked for anew,
// and the claim of another site is heard.
func TestLostOwner(t *testing.T) {
	b, f := newBench("a", "b"), claimFlow()
	b.script(t, f, "packet one -> ask a, ask b", "mine a -> foreign a, tunnel a one", "packet two -> tunnel a two")
	b.lost("a")
	b.script(t, f, "packet three -> ask a, ask b", "mine b -> foreign b, tunnel b three")
	b.lost("a")
	b.script(t, f, "packet four -> tunnel b four")
}

// TestReturnedGoFirst: what comes back by tunnel to a site that takes a session was
// there before what came since, and so it leaves.
func TestReturnedGoFirst(t *testing.T) {
	b, f := newBench("a"), claimFlow()
	b.hold(b.now, f)
	b.owners.packet(b.now, f, []byte("new"), false, nil)
	for _, p := range []string{"old", "older than new"} {
		if !b.holds(f, []byte(p)) {
			t.Errorf("%q was not kept", p)
		}
	}
	b.owners.packet(b.now, f, []byte("newest"), false, nil)
	if got, want := show(b.release(f, nil)), "back old, back older than new, back new, back newest"; got != want {
		t.Errorf("released %q, want %q", got, want)
	}
	if b.held != 0 || b.heldNow != 0 {
		t.Errorf("%d octets and %d packets are left", b.held, b.heldNow)
	}
}
