package store

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"

	"rhumb/placement"
)

func TestKeys(t *testing.T) {
	c := placement.ClusterID{Site: "ams1", Name: "web"}
	for _, tt := range []struct{ got, want string }{
		{voteKey(c, "ams1-a"), "vote/ams1/web/ams1-a"},
		{voteKey(placement.SiteID("ams1"), "n"), "vote/ams1/-/n"},
		{forceKey(c), "force/ams1/web"},
		{forceKey(placement.SiteID("ams1")), "force/ams1"},
		{slotKey(netip.MustParsePrefix("192.0.2.0/24"), 1), "slot/192.0.2.0_24/1"},
		{announceKey(netip.MustParsePrefix("2001:db8::/32"), "n"), "announce/2001:db8::_32/n"},
		{nodeKey("n", "rhumb-dns"), "node/n/rhumb-dns"},
		{docDir(7) + chunkName(0), "config/doc/0000000007/0000"},
		{planDir(7) + chunkName(12), "plan/0000000007/0012"},
		{keyPlan, "plan/current"},
	} {
		if tt.got != root+tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}

// Every key which a follower must hear of lies in what it watches, and zones do not.
func TestWatchedSpans(t *testing.T) {
	heard := func(key string) bool {
		for _, s := range watched() {
			if s.holds(key) {
				return true
			}
		}
		return false
	}
	for _, s := range listed() {
		if !heard(s.from) {
			t.Errorf("%s is listed and not watched", s.from)
		}
	}
	if heard(blobDir("ab") + chunkName(0)) {
		t.Error("zones are watched")
	}
}

func TestUnseal(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		newer, ok   bool
	}{
		{"ours", `{"schema":1,"value":7}`, false, true},
		{"with a field of tomorrow", `{"schema":1,"value":7,"more":{}}`, false, true},
		{"newer", `{"schema":2,"value":7}`, true, false},
		{"newer and of another shape", `{"schema":2,"value":"x"}`, true, false},
		{"none", `{"value":7}`, false, false},
		{"cut", `{"schema":1,"val`, false, false},
	} {
		v, err := unseal[int]([]byte(tt.value))
		if (err == nil) != tt.ok || errors.Is(err, ErrSchema) != tt.newer || tt.ok && v != 7 {
			t.Errorf("%s: %d, %v", tt.name, v, err)
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add("ams1", "web", "n1", int64(7))
	f.Add("a/b", "", "/", int64(math.MaxInt64))
	f.Add("..", "-", "\x00", int64(0))
	f.Fuzz(func(t *testing.T, site, name, node string, n int64) {
		key := voteKey(placement.ClusterID{Site: site, Name: name}, node)
		if !under(dirVotes).holds(key) || strings.Count(key, "/") != strings.Count(dirVotes, "/")+2 {
			t.Errorf("vote key %q leaves its directory", key)
		}
		if n >= 0 && n < 1e10 {
			for _, key := range []string{docDir(n) + chunkName(0), historyKey(n)} {
				dir := key[:strings.LastIndex(strings.TrimSuffix(key, "/0000"), "/")+1]
				if got, ok := numberIn(key, dir); !ok || got != n {
					t.Errorf("%s: number %d, %v", key, got, ok)
				}
			}
			if n > 0 && docDir(n-1) >= docDir(n) {
				t.Errorf("%d does not sort before %d", n-1, n)
			}
		}
		// Whatever stands in the store, reading a number from it must not go wrong.
		if got, ok := numberIn(dirDocs+site, dirDocs); ok && got < 0 {
			t.Errorf("%q: number %d", site, got)
		}
	})
}
