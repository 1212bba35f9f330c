package health

import (
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// TestEchoesWhereTheyAreClosed: loopback answers where the group of this process may
// ask, and where it may not, nothing is known: closed sockets are no dead host.
func TestEchoesWhereTheyAreClosed(t *testing.T) {
	check := placement.Check{ICMP: &placement.ICMPCheck{}}
	r := ProbeICMP(within(t, 20*time.Second), target("127.0.0.1:80", check))
	if err := PingAllowed(); err == nil && r.State != placement.Up {
		t.Errorf("echo sockets are open, and loopback does not answer: %+v", r)
	} else if err != nil && (r.State != placement.Unknown || r.Kind != "closed" || !strings.Contains(r.Cause, "ping_group_range")) {
		t.Errorf("%v, and a look says %+v", err, r)
	}
}
