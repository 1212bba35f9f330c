package bgp

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

func TestOwnListenerGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		var dead error
		set := func(err error) { mu.Lock(); dead = err; mu.Unlock() }
		set(errors.New("nobody listens on 192.0.2.53"))
		b := start(t, func(c *Config, _ *bench) {
			c.Listening = func(netip.Prefix) error { mu.Lock(); defer mu.Unlock(); return dead }
		})
		b.want(placement.Announce)
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		b.rule(placement.RuleAddress)
		set(nil)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		set(errors.New("nobody listens on 192.0.2.53"))
		b.pass(time.Second + time.Millisecond) // seen at the next audit, then no dwell
		b.expect(placement.Withdrawn)
		set(nil)
		b.pass(20 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

// TestOrder holds the order of address and route, both ways and at exit.
func TestOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, b *bench) {
			c.Host = &fakeHost{bound: make(map[netip.Addr]bool), log: b.engine}
			c.Addresses = []netip.Addr{vip}
		})
		b.up()
		b.want(placement.Withdrawn, intent)
		b.pass(1500 * time.Millisecond)
		b.expect(placement.Withdrawn)
		early := []string{"bind", "announce", "set", "set", "set", "withdraw"}
		if got := b.engine.told(false); !slices.Equal(got, early) {
			t.Errorf("history %v, want %v: the address stays for the routers' FIBs", got, early)
		}
		b.pass(2 * time.Second)
		if got, want := b.engine.told(true), append(early, "unbind"); !slices.Equal(got, want) {
			t.Errorf("history %v, want %v", got, want)
		}
		b.up()
		b.end()
		want := []string{"bind", "announce", "set", "set", "withdraw", "unbind"}
		if got := b.engine.told(false); !slices.Equal(got, want) {
			t.Errorf("history to the exit %v, want %v", got, want)
		}
	})
}

// TestAddressInUseStays keeps an address on lo as long as sessions on it last, but
// not for ever.
func TestAddressInUseStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var used atomic.Bool
		host := &fakeHost{bound: make(map[netip.Addr]bool)}
		b := start(t, func(c *Config, b *bench) {
			host.log = b.engine
			c.Host, c.Addresses = host, []netip.Addr{vip}
			c.InUse = func(a netip.Addr) bool { return a == vip && used.Load() }
		})
		bound := func(want bool) {
			t.Helper()
			synctest.Wait()
			if have, _ := host.Bound(vip); have != want {
				t.Errorf("bound %v, want %v", have, want)
			}
		}
		b.up()
		used.Store(true)
		b.want(placement.Withdrawn, intent)
		b.pass(30 * time.Minute)
		b.expect(placement.Withdrawn)
		bound(true)
		used.Store(false)
		b.pass(2 * time.Second)
		bound(false)
		b.up()
		used.Store(true)
		b.want(placement.Withdrawn, intent)
		b.pass(keepLimit + time.Minute)
		bound(false)
		b.up()
		b.end()
		bound(true) // other processes go on with it
	})
}
