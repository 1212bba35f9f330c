package authdns

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// How long a kind of query is turned away after it has done harm, at first and at
// most, and how many kinds are known. Each time that it does so again doubles it.
const (
	quarantineFirst = 10 * time.Minute
	quarantineMost  = 24 * time.Hour
	quarantineKinds = 64
)

// queryKind is what queries of death have in common: a name or all below it, the
// type, and the shape of the rest. The name is in wire format and lower case;
// empty where none could be read.
type queryKind struct {
	suffix string
	qtype  uint16
	shape  uint32
}

// confined is a kind in quarantine. It is kept when its time is over, to know it
// when it comes back.
type confined struct {
	queryKind
	until time.Time
	times int
}

// quarantine turns away kinds of query that have panicked, or ended the process,
// so that one of them costs an answer and not the server. Reading takes no lock
// and, while nothing is held, one look at a pointer.
type quarantine struct {
	mu   sync.Mutex // of writers
	list atomic.Pointer[[]confined]
	// until is when the last of the list is let go, in nanoseconds of Unix: from then
	// on queries are not looked at any more.
	until atomic.Int64
	// last is when a kind was last confined, in nanoseconds of Unix; 0: never.
	last atomic.Int64
}

// holds tells whether a query is of a kind in quarantine.
func (q *quarantine) holds(in []byte, now time.Time) bool {
	if until := q.until.Load(); until == 0 || now.UnixNano() >= until {
		return false
	}
	list := q.list.Load()
	kind := glance(in).kind(in)
	return slices.ContainsFunc(*list, func(c confined) bool { return now.Before(c.until) && c.covers(kind) })
}

// confine puts a query's kind into quarantine: its very name at first, what is
// around that where a second name beside it does the same. It returns the kind
// and how long it is held.
func (q *quarantine) confine(kind queryKind, now time.Time) (queryKind, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var list []confined
	if old := q.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	at := slices.IndexFunc(list, func(c confined) bool { return c.covers(kind) })
	if at < 0 {
		if at = slices.IndexFunc(list, func(c confined) bool { return c.beside(kind) }); at >= 0 {
			list[at].suffix = parent(kind.suffix)
		}
	}
	switch {
	case at >= 0:
	case len(list) < quarantineKinds:
		at, list = len(list), append(list, confined{queryKind: kind})
	default: // the one that would be let go first makes room
		for i := range list {
			if at < 0 || list[i].until.Before(list[at].until) {
				at = i
			}
		}
		list[at] = confined{queryKind: kind}
	}
	c := &list[at]
	held := quarantined(c.times)
	c.times++
	c.until = now.Add(held)
	q.list.Store(&list)
	q.last.Store(max(q.last.Load(), now.UnixNano()))
	q.until.Store(max(q.until.Load(), c.until.UnixNano()))
	return c.queryKind, held
}

// quarantined is how long a kind is held that was held so often before.
func quarantined(times int) time.Duration {
	if times < 0 {
		return 0
	}
	return min(quarantineFirst<<min(times, 10), quarantineMost)
}

// covers tells whether a query of another kind is one of this kind.
func (k queryKind) covers(other queryKind) bool {
	if k.qtype != other.qtype || k.shape != other.shape {
		return false
	}
	if k.suffix == "" || other.suffix == "" {
		return k.suffix == other.suffix
	}
	for name := other.suffix; ; name = parent(name) {
		if name == k.suffix {
			return true
		}
		if name[0] == 0 {
			return false
		}
	}
}

// beside tells whether two kinds differ in the first label alone. The root is
// around everything, so nothing is widened to it.
func (k queryKind) beside(other queryKind) bool {
	if k.qtype != other.qtype || k.shape != other.shape || len(k.suffix) < 2 || len(other.suffix) < 2 {
		return false
	}
	p := parent(k.suffix)
	return p[0] != 0 && p == parent(other.suffix)
}

// parent drops the first label of a wire name; the root is its own.
func parent(name string) string {
	if name[0] == 0 {
		return name
	}
	return name[1+int(name[0]):]
}

// String shows a kind in logs.
func (k queryKind) String() string {
	if k.suffix == "" {
		return "without a question"
	}
	name, _, err := dns.UnpackDomainName([]byte(k.suffix), 0)
	if err != nil {
		name = "?"
	}
	return name + " " + dns.Type(k.qtype).String()
}

// glimpse is what can be seen of a request without taking it apart. The code that
// takes it apart may be what fails, so nothing here is shared with it.
type glimpse struct {
	question int // where it ends; 0 for none
	qtype    uint16
	shape    uint32
	opt, do  bool
}

// kind is that of the request.
func (g glimpse) kind(in []byte) queryKind {
	k := queryKind{qtype: g.qtype, shape: g.shape}
	if g.question > 0 {
		name := slices.Clone(in[headerLen : g.question-4])
		for i, c := range name {
			if c >= 'A' && c <= 'Z' {
				name[i] = c + 'a' - 'A'
			}
		}
		k.suffix = string(name)
	}
	return k
}

// glance looks at a request. Its shape is opcode and counts, and where the next
// record is a plain OPT its version, DO and the codes of its options in order.
func glance(in []byte) (g glimpse) {
	if len(in) < headerLen {
		return g
	}
	g.mix(in[2] & 0xf8)
	g.mix(in[4:headerLen]...)
	off := headerLen
	for off < len(in) && in[off] != 0 && in[off] < 64 {
		off += 1 + int(in[off])
	}
	if binary.BigEndian.Uint16(in[4:]) != 1 || off+5 > len(in) || in[off] != 0 || off-headerLen > 254 {
		return g
	}
	g.question = off + 5
	g.qtype = binary.BigEndian.Uint16(in[off+1:])
	rest := in[g.question:]
	if len(rest) < 11 || rest[0] != 0 || binary.BigEndian.Uint16(rest[1:]) != dns.TypeOPT || binary.BigEndian.Uint16(in[10:]) == 0 {
		return g
	}
	g.opt, g.do = true, rest[7]&0x80 != 0
	g.mix(rest[6], rest[7]&0x80)
	for rest = rest[11:]; len(rest) >= 4; {
		g.mix(rest[:2]...)
		rest = rest[min(4+int(binary.BigEndian.Uint16(rest[2:])), len(rest)):]
	}
	return g
}

// mix takes octets into the shape (FNV-1a).
func (g *glimpse) mix(octets ...byte) {
	for _, o := range octets {
		g.shape = (g.shape ^ uint32(o)) * 16777619
	}
}

// refuse writes REFUSED to a request in quarantine, with an extended error (RFC 8914
// section 4.16, Blocked) where it has an OPT record.
func refuse(in, out []byte) (int, glimpse) {
	if len(in) < headerLen || in[2]&0x80 != 0 {
		return 0, glimpse{}
	}
	g := glance(in)
	n := max(g.question, headerLen)
	copy(out, in[:n])
	out[2], out[3] = 0x80|in[2]&0x79, dns.RcodeRefused
	clear(out[4:headerLen])
	if g.question > 0 {
		out[5] = 1
	}
	if !g.opt {
		return n, g
	}
	out[11] = 1
	e := edns{present: true, do: g.do}
	r := reply{q: &query{edns: e}, rcode: dns.RcodeRefused, ede: &extended{edeBlocked, "queries like this one are in quarantine"}}
	return n + copy(out[n:], r.opt()), g
}
