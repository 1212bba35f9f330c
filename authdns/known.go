package authdns

import (
	"crypto/rand"
	"net/netip"
	"sync/atomic"
	"time"
)

// known remembers the networks (/24, /56) which ask in calm times. It is a table of
// fixed size, shared by all workers, and reading and writing take no lock and allocate
// nothing. Who asks again and again over minutes stays; who came once makes room. So a
// flood with made-up sources cannot wash out the resolvers, and what it brings in itself
// is not learned, since nothing is while queries are turned away.
type known struct {
	key   Secret // an attacker shall not choose who shares a cell
	cells []atomic.Uint64
}

// A cell is, from the top: a tag of 20 bits, the minute last seen in 16, in how many
// minutes it was seen in 4, and two counts in 12 bits each, of what was asked and of
// that what does not exist. An empty cell is 0.
const (
	knownCount    = 12
	knownMask     = 1<<knownCount - 1
	knownAges     = 2 * knownCount
	knownMinutes  = knownAges + 4
	knownTag      = knownMinutes + 16
	knownSets     = 1 << 14
	knownWays     = 4
	knownOldest   = 15
	knownHalve    = 256 // so many questions are remembered, the earlier ones less and less
	knownAge      = 3   // minutes in which a network must have been seen
	knownForgets  = 24 * 60
	knownSampling = 8 // one question in so many is looked at
)

func newKnown() *known {
	k := &known{cells: make([]atomic.Uint64, knownSets*knownWays)}
	rand.Read(k.key[:]) // never fails (crypto/rand)
	return k
}

// set returns the cells among which a network's is, and its tag, which is never 0.
func (k *known) set(client netip.Addr) ([]atomic.Uint64, uint64) {
	b := network(client)
	h := sipHash(&k.key, b[:])
	return k.cells[h%knownSets*knownWays:][:knownWays], h>>knownTag | 1
}

// network is the part of an address that one operator has: /24, /56.
func network(client netip.Addr) (b [8]byte) {
	if client.Is4() {
		a := client.As4()
		copy(b[:3], a[:])
		b[7] = 4
		return b
	}
	a := client.As16()
	copy(b[:7], a[:])
	b[7] = 6
	return b
}

// minute is that of an instant, as cells have it.
func minute(now int64) uint16 { return uint16(now / int64(time.Minute)) }

// has tells whether a network is known.
func (k *known) has(client netip.Addr, now int64) bool {
	set, tag := k.set(client)
	for i := range set {
		if c := acquaintance(set[i].Load()); uint64(c)>>knownTag == tag {
			return c.good(minute(now))
		}
	}
	return false
}

// see takes in a question of a network. Whoever loses a race is seen another time.
func (k *known) see(client netip.Addr, absent bool, now int64) {
	set, tag := k.set(client)
	at, least := -1, knownOldest+1
	for i := range set {
		old := set[i].Load()
		c := acquaintance(old)
		if c != 0 && old>>knownTag == tag {
			set[i].CompareAndSwap(old, uint64(c.seen(absent, minute(now))))
			return
		}
		if s := c.standing(minute(now)); s < least {
			at, least = i, s
		}
	}
	if least < knownAge { // who is known makes no room for a newcomer
		set[at].CompareAndSwap(set[at].Load(), uint64(acquaintance(tag<<knownTag|uint64(minute(now))<<knownMinutes).seen(absent, minute(now))))
	}
}

// count is how many networks are known.
func (k *known) count(now int64) (n int) {
	for i := range k.cells {
		if acquaintance(k.cells[i].Load()).good(minute(now)) {
			n++
		}
	}
	return n
}

// acquaintance is a cell.
type acquaintance uint64

func (c acquaintance) age() int    { return int(c >> knownAges & 15) }
func (c acquaintance) asked() int  { return int(c >> knownCount & knownMask) }
func (c acquaintance) absent() int { return int(c & knownMask) }

// since is for how many minutes it was not seen, within 44 days. A clock that was set
// back by less than a day says 0.
func (c acquaintance) since(minute uint16) int {
	since := minute - uint16(c>>knownMinutes)
	if since > 1<<16-knownForgets {
		return 0
	}
	return int(since)
}

// standing is what it has to lose: 0 where it is empty or forgotten.
func (c acquaintance) standing(minute uint16) int {
	if c == 0 || c.since(minute) > knownForgets {
		return 0
	}
	return c.age()
}

// good tells whether it is one of long standing that mostly asks for what exists.
func (c acquaintance) good(minute uint16) bool {
	return c.standing(minute) >= knownAge && 2*c.absent() <= c.asked()
}

// seen is the cell after one more question.
func (c acquaintance) seen(absent bool, minute uint16) acquaintance {
	age, asked, gone := c.age(), c.asked(), c.absent()
	switch since := c.since(minute); {
	case since > knownForgets, age == 0:
		age, asked, gone = 1, 0, 0
	case since > 0:
		age = min(age+1, knownOldest)
	}
	if asked >= knownHalve {
		asked, gone = asked/2, gone/2
	}
	if absent {
		gone++
	}
	return c>>knownTag<<knownTag | acquaintance(minute)<<knownMinutes | acquaintance(age)<<knownAges | acquaintance(asked+1)<<knownCount | acquaintance(gone)
}
