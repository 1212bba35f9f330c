package transfer

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestRefresh plays scripts: each word is an event, each line what must then hold.
// Times are seconds after the start. The SOA says refresh 3600, retry 600, expire 86400.
func TestRefresh(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	soa := func(serial uint32) *dns.SOA {
		return &dns.SOA{Serial: serial, Refresh: 3600, Retry: 600, Expire: 86400}
	}
	for _, c := range []struct {
		why       string
		primaries int
		script    string
	}{
		{"never received: tried at growing distances", 1,
			"@0 due 0; @0 fail due 2; @2 fail due 6; @6 fail due 14; @1000 fail due 1016; @2000 fail fail fail due 2120"},
		{"the next primary at once, a pause after all of them", 3,
			"@0 fail due 0 primary 1; @1 fail due 1 primary 2; @2 fail due 4 primary 0"},
		{"RFC 1035 3.3.13 refresh, then retry", 1,
			"@0 confirm=5 due 3600; @3600 fail due 4200; @4200 fail due 4800; @4800 confirm=6 due 8400"},
		{"it stays with the primary that answered", 2,
			"@0 fail primary 1; @0 confirm=5 due 3600 primary 1; @3600 fail due 3600 primary 0; @3600 confirm=5 due 7200 primary 0"},
		{"expires a day after the last word of a primary", 1,
			"@0 confirm=5 expired no; @86399 fail expired no next 86400; @86400 expired yes; @86401 confirm=5 expired no"},
		{"failures do not put expiry off", 1,
			"@0 confirm=5; @86000 fail due 86600 next 86400; @86400 expired yes next 86600"},
		{"RFC 1996 a NOTIFY asks at once", 1,
			"@0 confirm=5 due 3600; @100 notify=6 due 100"},
		{"what is held already is no news", 1,
			"@0 confirm=5 due 3600; @100 notify=5 due 3600; @100 notify=4 due 3600"},
		{"RFC 1996 3.7 without a SOA it may be anything", 1,
			"@0 confirm=5 due 3600; @100 notify due 100"},
		{"RFC 1982 across the end of the circle", 1,
			"@0 confirm=4294967295 due 3600; @100 notify=3 due 100"},
		{"a NOTIFY while a primary is asked: once more, then", 1,
			"@0 confirm=5 due 3600; @100 asking notify=7 due 3600; @101 confirm=6 due 101; @102 confirm=7 due 3702"},
		{"also where that failed", 1,
			"@0 confirm=5; @100 asking notify=7; @101 fail due 101; @101 fail due 701"},
	} {
		t.Run(c.why, func(t *testing.T) {
			playChecks(t, c.script, c.primaries, start, soa)
		})
	}
}

// playChecks plays a script word by word and compares what it states.
func playChecks(t *testing.T, script string, primaries int, start time.Time, soa func(uint32) *dns.SOA) {
	t.Helper()
	r := restored(primaries, nil, time.Time{}, start)
	for _, line := range strings.Split(script, ";") {
		words := strings.Fields(line)
		at, _ := strconv.Atoi(words[0][1:])
		now, asking := start.Add(time.Duration(at)*time.Second), false
		for i := 1; i < len(words); i++ {
			key, value, given := strings.Cut(words[i], "=")
			n, _ := strconv.ParseUint(value, 10, 32)
			got := ""
			switch key {
			case "fail":
				r = r.fail(now)
			case "confirm":
				r = r.confirm(now, soa(uint32(n)), 0)
			case "asking":
				asking = true
			case "notify":
				r = r.notified(now, uint32(n), given, asking)
			case "due":
				got = fmt.Sprint(int(r.due.Sub(start).Seconds()))
			case "next":
				got = fmt.Sprint(int(r.next(now).Sub(start).Seconds()))
			case "primary":
				got = fmt.Sprint(r.primary)
			case "expired":
				got = map[bool]string{true: "yes", false: "no"}[r.expired(now)]
			default:
				t.Fatalf("%q is no word of a script", words[i])
			}
			if got != "" {
				if i++; got != words[i] {
					t.Errorf("%s: %s is %s, want %s", strings.TrimSpace(line), key, got, words[i])
				}
			}
		}
	}
}

// TestTimers: what a primary sets is kept within sense.
func TestTimers(t *testing.T) {
	for _, c := range []struct {
		why                        string
		refresh, retry, expire     uint32
		wantR, wantRetry, wantLast time.Duration
	}{
		{"as they are", 3600, 600, 86400, time.Hour, 10 * time.Minute, 24 * time.Hour},
		{"zeros", 0, 0, 0, minTimer, minTimer, 2 * minTimer},
		{"RFC 1912 2.2 expire before refresh", 3600, 600, 60, time.Hour, 10 * time.Minute, 70 * time.Minute},
		{"the largest", 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, maxRefresh, maxRetry, (1<<32 - 1) * time.Second},
	} {
		got := timersOf(&dns.SOA{Refresh: c.refresh, Retry: c.retry, Expire: c.expire})
		if got != (timers{c.wantR, c.wantRetry, c.wantLast}) {
			t.Errorf("%s: %v", c.why, got)
		}
	}
}

// TestClockSetBack: a version from disk that was confirmed in the future expires
// no later than if it had been confirmed now.
func TestClockSetBack(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := restored(1, &dns.SOA{Serial: 1, Refresh: 60, Retry: 60, Expire: 3600}, now.Add(1000*time.Hour), now)
	if !r.expired(now.Add(time.Hour)) {
		t.Error("it has not expired after its time")
	}
}
