package authdns

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/dnssec"
	"rhumb/authdns/zone"
)

// signMetrics count what signing costs, and say until when it holds.
type signMetrics struct {
	signed  *prometheus.CounterVec
	refused prometheus.Counter
	keys    *prometheus.GaugeVec
	others  *prometheus.GaugeVec
	at      *prometheus.GaugeVec
	suspect prometheus.Gauge
	steps   prometheus.Counter
}

func newSignMetrics() *signMetrics {
	return &signMetrics{
		signed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_dnssec_signatures_total", Help: "RRsets signed, of names that exist and of others."}, []string{"names"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_dnssec_budget_spent_total", Help: "Replies that were not signed, as the budget for names that do not exist was spent."}),
		keys:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_dnssec_keys", Help: "Published keys of a signed zone."}, []string{"zone"}),
		others:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_dnssec_other_keys", Help: "Keys of other providers in the DNSKEY RRset of a signed zone."}, []string{"zone"}),
		at:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_dnssec_signed_timestamp_seconds", Help: "Hour for which the zone is signed; every signature is valid for five days from then at least."}, []string{"zone"}),
		suspect: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_dnssec_clock_suspect", Help: "1 while the clock cannot be right, so that signatures may not be valid."}),
		steps:   prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_dnssec_clock_steps_total", Help: "Times that the clock was set by more than five minutes."}),
	}
}

// all lists them for the metrics of the Server, which register and collect them.
func (m *signMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.signed, m.refused, m.keys, m.others, m.at, m.suspect, m.steps}
}

// count counts an RRset that was signed, however many keys signed it.
func (m *signMetrics) count(exists bool) {
	if exists {
		m.signed.WithLabelValues("existing").Inc()
	} else {
		m.signed.WithLabelValues("absent").Inc()
	}
}

// setZones tells about the signed zones and forgets the others.
func (m *signMetrics) setZones(zones map[string]*loaded) {
	m.keys.Reset()
	m.others.Reset()
	m.at.Reset()
	for name, l := range zones {
		if l.sign != nil {
			ours, others := l.sign.ring.Len()
			m.keys.WithLabelValues(name).Set(float64(ours))
			m.others.WithLabelValues(name).Set(float64(others))
			m.at.WithLabelValues(name).Set(float64(l.sign.ring.At.Unix()))
		}
	}
}

// newSignatures makes those of a Server; rate 0 is the default.
func newSignatures(rate int, now func() time.Time) *signatures {
	if rate == 0 {
		rate = defaultSignBudget
	}
	return &signatures{rate: rate, cache: dnssec.NewCache(keptAbsent), metrics: newSignMetrics(),
		datagrams: dnssec.NewBudget(rate, now), streams: dnssec.NewBudget(rate, now)}
}

// sign prepares a zone to be signed, or leaves it as its file is. Where keys are
// missing or none signs the version before stays in force, since a zone that lost
// its signatures is a forgery to everybody who validates.
func (s *Server) sign(l, old *loaded) error {
	name := l.meta.Name
	if l.meta.DNSSEC == "" {
		l.zone, l.sign = l.file, nil
		return nil
	}
	if l.file == nil {
		return nil // no version was ever right: there is nothing to sign
	}
	// Signatures of somebody else's beside ours, or a chain of names beside our proofs,
	// would be believed by some validators and not by others.
	if s := l.file.Signed; s != nil {
		return fmt.Errorf("%szone:%d:%d: the zone is to be signed here, and its owner has signed it already", name, s.Line, s.Column)
	}
	ring, err := dnssec.NewRing(name, l.keys, s.signs.hour, l.meta.OtherKeys...)
	if err != nil {
		return err
	}
	// A zone of the same keys is the same zone: what was made from it may stay.
	if old != nil && old.sign != nil && old.file == l.file && ring.Same(old.sign.ring) {
		l.zone = old.zone
		if ring.At.Equal(old.sign.ring.At) {
			l.sign = old.sign
			return nil
		}
	} else {
		l.zone = l.file.Grown(ring.Apex())
	}
	l.sign = &signing{ring: ring, made: s.signs}
	(&served{name: name, zone: l.zone, sign: l.sign}).warm()
	return nil
}

// resign signs anew what is due at each hour, until the context ends. It looks at the
// clock often, since one that is set while we wait would make us late.
func (s *Server) resign(ctx context.Context) {
	t := time.NewTicker(clockEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.checkClock()
			s.turn()
		}
	}
}

// turn puts the signatures of a new hour in force, once it has come. Most RRsets have
// theirs from the hour before; a zone that cannot be signed any more keeps what it has,
// which holds for five days, and the age of its signatures raises an alarm.
func (s *Server) turn() {
	s.loading.Lock()
	defer s.loading.Unlock()
	if !s.setHour() {
		return
	}
	s.warnEnding()
	s.signs.cache.Turn() // what two hours in a row had no use for is forgotten
	next, signs := maps.Clone(s.zones), false
	for _, name := range sortedKeys(next) {
		old := next[name]
		if old.sign == nil {
			continue
		}
		l := *old
		if err := s.sign(&l, old); err != nil {
			s.log.Error("zone cannot be signed: it is served as it was", "zone", name, "err", err)
			continue
		}
		next[name], signs = &l, true
	}
	if signs {
		s.publishZones(next)
	}
}

// setHour reads the clock for signatures; true says that their hour has changed. It
// follows a clock that is set back, too: one that ran ahead would otherwise hold
// us in a future in which nothing that we sign is valid yet.
func (s *Server) setHour() bool {
	hour := dnssec.HourOf(s.now())
	if hour.Equal(s.signs.hour) {
		return false
	}
	s.signs.hour = hour
	return true
}

// entrust lets a signed zone vouch for the keys of the zones referred to below it,
// where they are signed here as well and the file does not say which keys they have:
// there is nothing to copy by hand then, and nothing to forget at a roll.
func (c *compiler) entrust(s *served, cuts []zone.Mark) {
	if s.sign == nil || s.zone == nil {
		return
	}
	var ds []dns.RR
	for i := range cuts {
		child := c.zones[cuts[i].Name]
		if child.sign != nil && len(s.zone.RRset(cuts[i].Name, dns.TypeDS)) == 0 {
			ds = append(ds, child.sign.ring.DS(dnssec.TTL)...)
		}
	}
	if len(ds) > 0 {
		s.zone = s.zone.Grown(ds)
	}
}

// plain is the zone without what signing adds: whoever copies it gets no signatures of
// ours, and must not have keys that promise some.
func (l *loaded) plain() *zone.Zone {
	if l.sign != nil {
		return l.file
	}
	return l.zone
}
