package netlab

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestCacheRanks(t *testing.T) {
	now := time.Unix(1000, 0)
	rr := records(t, "x.test. 60 IN A 192.0.2.1\nx.test. 60 IN A 192.0.2.2")
	for _, tc := range []struct {
		name     string
		old, new rank
		age      time.Duration
		replaced bool
	}{
		{"authentic over glue", rankGlue, rankAuthentic, 0, true},
		{"glue not over authentic", rankAuthentic, rankGlue, 0, false},
		{"glue over expired", rankAuthentic, rankGlue, time.Minute, true},
		{"referral not over authority", rankAuthority, rankReferral, 0, false},
		{"referral does not prolong referral", rankReferral, rankReferral, 0, false},
		{"authentic again", rankAuthentic, rankAuthentic, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCache(10)
			key := keyOf(rr[0])
			c.put(&cacheEntry{key: key, rrs: rr[:1], rank: tc.old, expires: now.Add(time.Minute)}, now)
			later := now.Add(tc.age)
			c.put(&cacheEntry{key: key, rrs: rr[1:], rank: tc.new, expires: later.Add(time.Minute)}, later)
			e := c.get(key, netip.Addr{}, later)
			if got := e.rank == tc.new && e.rrs[0] == rr[1]; got != tc.replaced {
				t.Errorf("replaced: %v", got)
			}
		})
	}
}

func TestCacheIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCache(100)
	put := func(i int) {
		key := cacheKey{name: fmt.Sprintf("n%d.test.", i), rtype: dns.TypeA}
		c.put(&cacheEntry{key: key, rank: rankAuthentic, expires: now.Add(time.Hour)}, now)
	}
	for i := range 1000 {
		put(i)
		c.get(cacheKey{name: "n0.test.", rtype: dns.TypeA}, netip.Addr{}, now)
	}
	if c.len() != 100 || len(c.byKey) != 100 {
		t.Errorf("%d entries, %d keys", c.len(), len(c.byKey))
	}
	if c.get(cacheKey{name: "n0.test.", rtype: dns.TypeA}, netip.Addr{}, now) == nil {
		t.Error("the most used entry fell out")
	}
}
