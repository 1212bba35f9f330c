package placement

import "time"

// Defaults of an answer where Policy and Service say nothing.
const (
	DefaultPick        = 2
	DefaultTTL         = 20 * time.Second
	DefaultReferralTTL = time.Hour
	// DrainingTTL is that of a referral whose nearest site is being drained: a
	// resolver there would stay away for an hour after the site's return.
	DrainingTTL = time.Minute
)

// Picks is how many addresses of a family, or name servers, an answer carries.
func (p *Policy) Picks() int {
	if p == nil || p.Pick <= 0 {
		return DefaultPick
	}
	return p.Pick
}

// AnswerTTL is how long an answer of the service may be kept; p may be nil. A
// referral does not take the policy's, which is made for addresses.
func (s *Service) AnswerTTL(p *Policy) time.Duration {
	switch {
	case s.IsNameServer():
		return s.TTL.Or(DefaultReferralTTL)
	case s.TTL == 0 && p != nil:
		return p.TTL.Or(DefaultTTL)
	}
	return s.TTL.Or(DefaultTTL)
}

// TTL is how long the answer of this choice may be kept.
func (c *Choice) TTL() time.Duration {
	ttl := c.Map.Service.AnswerTTL(c.Map.Policy)
	if c.Map.Service.IsNameServer() && c.Draining() {
		return min(ttl, DrainingTTL)
	}
	return ttl
}

// Draining tells whether the cheapest candidate is being drained.
func (c *Choice) Draining() bool {
	best := -1
	for i, cand := range c.Row.Candidates {
		if cand.Out != OutExcluded && (best < 0 || cand.Cost < c.Row.Candidates[best].Cost) {
			best = i
		}
	}
	return best >= 0 && c.Row.Candidates[best].Out == OutDrained
}
