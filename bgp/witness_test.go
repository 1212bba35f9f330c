package bgp

import (
	"testing"
	"time"

	"rhumb/placement"
)

func TestWitnessWithoutStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.Slots, c.Announcer = nil, nil })
		b.up()
		b.want(placement.Withdrawn, local)
		b.see(2, true) // asks to be avoided itself: no fallback
		b.pass(20 * time.Second)
		b.expect(placement.GShut)
		b.see(2, false)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestWitnessNotBeforeTenSeconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.Slots, c.Announcer = nil, nil })
		b.up()
		b.see(2, false)
		b.want(placement.Withdrawn, local)
		b.pass(9 * time.Second)
		b.expect(placement.GShut)
		b.pass(3 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestWitnessGoesWithItsPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.Slots, c.Announcer = nil, nil })
		b.up()
		b.see(2, false)
		b.engine.changes <- Change{Peer: &PeerState{Address: router, State: "idle"}}
		b.want(placement.Withdrawn, local)
		b.pass(20 * time.Second)
		b.expect(placement.GShut)
		b.end()
	})
}
