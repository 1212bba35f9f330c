package forward

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// cookieLife is how long SYN cookies count as in use after the last was sent.
const cookieLife = 5 * time.Second

// cookieWatch tells whether the kernel answers SYNs with cookies (RFC 4987
// section 3.6). Its holder asks again and again.
type cookieWatch struct {
	known bool
	count uint64
	until time.Time
}

// sent tells whether cookies were sent lately.
func (c *cookieWatch) sent(now time.Time) bool {
	// What can't be read is no flood: packets are asked about, as before.
	text, err := os.ReadFile("/proc/self/net/netstat")
	return err == nil && c.note(now, cookiesSent(string(text)))
}

// note takes the kernel's count. The first tells nothing: it counts since the
// machine's start.
func (c *cookieWatch) note(now time.Time, count uint64) bool {
	if c.known && count != c.count {
		c.until = now.Add(cookieLife)
	}
	c.known, c.count = true, count
	return now.Before(c.until)
}

// cookiesSent reads the count from /proc/net/netstat: a line of names for each
// group, and below it a line of values.
func cookiesSent(text string) uint64 {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "SyncookiesSent" && i < len(fields) {
				n, _ := strconv.ParseUint(fields[i], 10, 64)
				return n
			}
		}
	}
	return 0
}
