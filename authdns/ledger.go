package authdns

import (
	"net/netip"
	"sync/atomic"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// ledger is what one worker counts on the fast path while a state is in force.
// The worker adds, whoever reads takes out: every cell is counted once. No cell is
// shared by two workers, so adding costs no more than the instruction.
type ledger struct {
	state *state
	// common counts by zone; most zones are never asked through most workers, so
	// each has its cells from its first query on.
	common []atomic.Pointer[commonCells]
	// decisions count by service, site and reason; demand by service and row of its map.
	decisions, demand []atomic.Uint64
	cookies           [len(cookieUses)]atomic.Uint64
}

// commonCells count by type (commonTypes, others), ecsUse, RCODE and family.
type commonCells [(len(commonTypes) + 1) * len(ecsUses) * 4]atomic.Uint64

// commonTypes are counted by name, all others together in one more cell.
var commonTypes = [...]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT,
	dns.TypeCNAME, dns.TypeSRV, dns.TypePTR, dns.TypeCAA, dns.TypeSVCB, dns.TypeDS, dns.TypeDNSKEY}

// ecsUses lists what may become of a client subnet option, in the order counted.
var ecsUses = [...]ecsUse{ecsNone, ecsUsed, ecsIgnored, ecsOff}

// rcodes are those that the fast path gives.
var rcodes = [...]int{dns.RcodeSuccess, dns.RcodeNameError}

// Places in ecsUses.
const (
	countNone = iota
	countUsed
	countIgnored
	countOff
)

func newLedger(s *state) *ledger {
	q := s.quick
	return &ledger{state: s,
		common:    make([]atomic.Pointer[commonCells], len(q.zones)),
		decisions: make([]atomic.Uint64, q.decisions),
		demand:    make([]atomic.Uint64, q.rows),
	}
}

func (l *ledger) countCommon(zone int, qtype uint16, ecs int, from netip.Addr, rcode int) {
	kind := 0
	if !from.Is4() {
		kind = 1
	}
	if rcode == dns.RcodeNameError {
		kind += 2
	}
	t := 0
	for t < len(commonTypes) && commonTypes[t] != qtype {
		t++
	}
	cells := l.common[zone].Load()
	if cells == nil { // the worker alone stores
		cells = new(commonCells)
		l.common[zone].Store(cells)
	}
	cells[(t*len(ecsUses)+ecs)*4+kind].Add(1)
}

// countChoice counts a decision about a service; site is a place in its sites.
func (l *ledger) countChoice(s *quickService, site int, why string, class uint16) {
	r := 0
	for reasons[r] != why {
		r++
	}
	l.decisions[s.decision+site*len(reasons)+r].Add(1)
	l.demand[s.row+min(int(class), len(s.m.Rows)-1)].Add(1)
}

// fold moves what was counted to where it is read. Anybody may call it at any time.
func (l *ledger) fold(m *metrics, t *tally) {
	q := l.state.quick
	for i := range l.common {
		if cells := l.common[i].Load(); cells != nil {
			cells.fold(q.zones[i], m, t)
		}
	}
	for i := range q.services {
		l.foldService(&q.services[i], m, t)
	}
	for i := range l.cookies {
		if n := take(&l.cookies[i]); n > 0 {
			m.cookies.WithLabelValues(cookieUses[i]).Add(float64(n))
		}
	}
}

func (c *commonCells) fold(zone string, m *metrics, t *tally) {
	for i := range c {
		n := take(&c[i])
		if n == 0 {
			continue
		}
		family, rcode, ecs, k := i%2, rcodes[i/2%2], i/4%len(ecsUses), i/4/len(ecsUses)
		label := "other"
		if k < len(commonTypes) {
			label = typeLabel(commonTypes[k])
		}
		m.add(zone, label, familyLabels[family], rcode, ecsUses[ecs], n)
		t.add(func() { t.queries += int64(n) })
	}
}

func (l *ledger) foldService(s *quickService, m *metrics, t *tally) {
	for i := range s.sites {
		for r, why := range reasons {
			if n := take(&l.decisions[s.decision+i*len(reasons)+r]); n > 0 {
				m.decisions.WithLabelValues(l.state.quick.zones[s.zone], s.steered.policy, s.sites[i], why).Add(float64(n))
				if s.sites[i] != "" {
					t.add(func() { t.answers[s.sites[i]] += int64(n) })
				}
			}
		}
	}
	for row := range s.m.Rows {
		if n := take(&l.demand[s.row+row]); n > 0 {
			class := uint16(row)
			if row == len(s.m.Rows)-1 {
				class = placement.NoClass
			}
			t.add(func() { t.demand[demandKey{s.steered.service.Name, class}] += int64(n) })
		}
	}
}

// take empties a cell. Most are empty, and a look at those costs no exchange.
func take(c *atomic.Uint64) uint64 {
	if c.Load() == 0 {
		return 0
	}
	return c.Swap(0)
}
