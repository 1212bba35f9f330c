package authdns

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Limits bound what a client may have of a Server.
type Limits struct {
	// Rate is how many replies of one kind about one thing go to a client's network
	// (/24, /56) in a second over UDP; 0 is no limit. Most replies to spoofed queries
	// are alike, and few resolvers ask for one thing twice while it is in their caches.
	Rate int
	// Slip: of so many replies beyond the rate one is sent truncated and the others
	// are dropped, so that a resolver which shares the network of a victim comes back
	// by TCP; 0 is 2, 1 truncates all.
	Slip int
	// Exempt are networks that are never limited.
	Exempt []netip.Prefix
	// Connections over TCP at once, in all and from one address; 0 is the default.
	Connections, PerClient int
	// Idle is how long a connection may wait for a query, and a query for its end;
	// 0 is the default.
	Idle time.Duration
}

// Defaults of Limits (RFC 7766 section 6.2, RFC 9210 section 4).
const (
	defaultSlip        = 2
	defaultConnections = 1024
	defaultPerClient   = 64
	defaultIdle        = 10 * time.Second
)

// The kinds of reply that are counted apart.
const (
	kindAnswer = iota
	kindNoData
	kindNXDomain
	kindReferral
	kindError
)

// verdict is what becomes of a reply.
type verdict uint8

const (
	limitPass verdict = iota
	limitSlip
	limitDrop
)

// limiter counts replies in a table of fixed size, shared by all workers: the
// kernel spreads an attack with many source ports over all of them. It allocates
// nothing, takes no lock, and forgets what has been quiet longest.
type limiter struct {
	seed   maphash.Seed // an attacker shall not choose who shares a cell
	began  time.Time
	step   uint64 // ticks that a reply costs
	slip   uint64
	exempt []netip.Prefix
	cells  []atomic.Uint64
}

// A cell is, from the top: a tag of 18 bits, 4 bits of replies withheld since the
// last slip, and in 42 bits the tick at which all that was sent would have been
// sent, had it been at the rate (the generic cell rate algorithm). A tick is 10 us, so
// that the clock turns after 500 days; a cell that old says "quiet" either way.
const (
	tickBits  = 42
	tickMask  = 1<<tickBits - 1
	slipShift = tickBits
	slipMask  = 15
	tagShift  = 46
	second    = uint64(time.Second / (10 * time.Microsecond))
	maxRate   = int(second)
	maxSlip   = 10
	ways      = 4 // cells among which one is found, or the quietest replaced
	sets      = 1 << 14
)

// newLimiter makes an empty table, nil where nothing is limited.
func newLimiter(l *Limits, now time.Time) *limiter {
	if l.Rate <= 0 {
		return nil
	}
	slip := l.Slip
	if slip == 0 {
		slip = defaultSlip
	}
	return &limiter{seed: maphash.MakeSeed(), began: now, step: second / uint64(min(l.Rate, maxRate)), slip: uint64(min(slip, maxSlip)),
		exempt: slices.Clone(l.Exempt), cells: make([]atomic.Uint64, ways*sets)}
}

// judge counts a reply and says what is to become of it. The subject is what the
// replies of its kind are about.
func (l *limiter) judge(client netip.Addr, kind byte, subject uint64, now time.Time) verdict {
	for _, p := range l.exempt {
		if p.Contains(client) {
			return limitPass
		}
	}
	h := l.key(client, kind, subject)
	set := l.cells[(h%sets)*ways:][:ways]
	tick := uint64(now.Sub(l.began)/(10*time.Microsecond)) & tickMask
	for range 64 { // others may count in the same cell at this moment
		cell := quietest(set, h>>tagShift, tick)
		old := cell.Load()
		next, v := l.count(old, h>>tagShift, tick)
		if cell.CompareAndSwap(old, next) {
			return v
		}
	}
	return limitPass // one more is no harm
}

// key mixes the client's network, the kind and the subject.
func (l *limiter) key(client netip.Addr, kind byte, subject uint64) uint64 {
	var b [17]byte
	if client.Is4() {
		a := client.As4()
		copy(b[:3], a[:])
		b[7] = 4
	} else {
		a := client.As16()
		copy(b[:7], a[:])
		b[7] = 6
	}
	b[8] = kind
	binary.LittleEndian.PutUint64(b[9:], subject)
	return maphash.Bytes(l.seed, b[:])
}

// quietest returns the cell with a tag, else the one that has been quiet longest.
func quietest(set []atomic.Uint64, tag, tick uint64) *atomic.Uint64 {
	at, least := 0, uint64(1<<63)
	for i := range set {
		c := set[i].Load()
		if c>>tagShift == tag && c != 0 {
			return &set[i]
		}
		if b := debt(c, tick); b < least || c == 0 {
			at, least = i, b
		}
	}
	return &set[at]
}

// debt is how far a cell is ahead of the clock; 0 once it has caught up.
func debt(cell, tick uint64) uint64 {
	d := (cell - tick) & tickMask
	if cell == 0 || d > 1<<(tickBits-1) {
		return 0
	}
	return d
}

// count adds a reply to a cell. A second's worth may come at once.
func (l *limiter) count(cell, tag, tick uint64) (next uint64, v verdict) {
	ahead, withheld := uint64(0), uint64(0)
	if cell>>tagShift == tag {
		ahead, withheld = debt(cell, tick), cell>>slipShift&slipMask
	}
	switch {
	case ahead+l.step <= second:
		ahead, withheld, v = ahead+l.step, 0, limitPass
	case withheld+1 >= l.slip:
		withheld, v = 0, limitSlip
	default:
		withheld, v = withheld+1, limitDrop
	}
	return tag<<tagShift | withheld<<slipShift | (tick+ahead)&tickMask, v
}

// about tells of which kind a reply is, and what it is about: the question where
// its answer stands for itself, the zone where any name of very many would have
// had the like, nothing for an error.
func (l *limiter) about(reply []byte, zone string, wildcard bool) (kind byte, subject uint64) {
	rcode, aa := int(reply[3]&0xf), reply[2]&0x04 != 0
	switch {
	case rcode == dns.RcodeNameError:
		return kindNXDomain, maphash.String(l.seed, zone)
	case rcode != dns.RcodeSuccess:
		return kindError, 0
	case !aa:
		return kindReferral, maphash.String(l.seed, zone)
	case binary.BigEndian.Uint16(reply[6:]) == 0:
		kind = kindNoData
	}
	if wildcard {
		return kind, maphash.String(l.seed, zone)
	}
	return kind, l.question(reply)
}

// question hashes name and type of a reply's question, in one case: who spells a
// name in many ways asks for one thing.
func (l *limiter) question(reply []byte) uint64 {
	var b [maxQuestion]byte
	end := headerLen
	for end < len(reply) && reply[end] != 0 {
		end += 1 + int(reply[end])
	}
	n := copy(b[:], reply[headerLen:min(end+5, len(reply))])
	for i, c := range b[:n] {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return maphash.Bytes(l.seed, b[:n])
}

// maxQuestion is a name of greatest length with type and class.
const maxQuestion = 255 + 4

// bound lets a finished reply over UDP pass, or leaves as much of it as the limits
// do: 0 is none. Whoever shows a good cookie is no victim of a spoofed address.
func (s *Server) bound(st *state, in, out []byte, n int, o *outcome, from asker, now time.Time) int {
	if n == 0 || from.tcp || s.shield.limiter == nil || o.cookie == cookieGood {
		return n
	}
	kind, subject := s.shield.limiter.about(out[:n], o.zone, o.wildcard)
	switch s.shield.limiter.judge(from.addr.Addr(), kind, subject, now) {
	case limitDrop:
		s.metrics.limited[limitDrop].Inc()
		return 0
	case limitSlip:
		s.metrics.limited[limitSlip].Inc()
		if o.cookie != cookieNone { // a cookie of ours brings it back sooner than TCP
			from.pressed = true
			n, _ = st.answer(in, out, from)
			return n
		}
		return cutShort(out[:n])
	}
	return n
}
