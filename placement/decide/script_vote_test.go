package decide

import (
	"slices"
	"strings"

	"rhumb/placement"
)

// vote FROM OBJECT STATE [local|shared|hold|process|passive]: it is in the store.
func (s *stage) vote(f []string) {
	s.votes = s.put(s.votes, s.ballot(f))
	s.rev++
}

// hear FROM OBJECT STATE [...]: as vote, but the store does not have it yet.
func (s *stage) hear(f []string) { s.heard = s.put(s.heard, s.ballot(f)) }

// arrive: the store has what was heard, and that is a votes revision.
func (s *stage) arrive([]string) {
	for _, v := range s.heard {
		s.votes = s.put(s.votes, v)
	}
	s.heard = nil
	s.rev++
}

func (s *stage) ballot(f []string) placement.Vote {
	var state placement.State
	if err := state.UnmarshalText([]byte(f[2])); err != nil {
		s.t.Fatal(err)
	}
	v := vote(siteOf(f[0]), f[1], state, placement.NoFault, s.now.Sub(epoch()))
	v.Vantage = vantageOf(f[0])
	s.seq++
	v.Seq = 1000 + s.seq
	for _, word := range f[3:] {
		switch e := placement.Evidence(word); {
		case word == "hold":
			v.Hold = true
		case e == placement.Process || e == placement.Passive:
			v.Second = e
		default:
			v.Fault = placement.Fault(word)
		}
	}
	return v
}

func (s *stage) put(votes []placement.Vote, v placement.Vote) []placement.Vote {
	return append(slices.DeleteFunc(slices.Clone(votes), func(o placement.Vote) bool { return o.Object == v.Object && o.Vantage == v.Vantage }), v)
}

// siteOf and vantageOf read ams1, whose vantage is ams1-a, or ams1/b.
func siteOf(text string) string { return strings.Split(text, "/")[0] }

func vantageOf(text string) string {
	site, machine, _ := strings.Cut(text+"/a", "/")
	return site + "-" + machine[:1]
}

// machine SITE/b: the site has a second vantage, which sees all up.
func (s *stage) machine(f []string) {
	for _, v := range allUp(s.inv) {
		if v.Site == siteOf(f[0]) {
			v.Vantage = vantageOf(f[0])
			s.votes = append(s.votes, v)
		}
	}
	s.rev++
}

// missed SITE/b by SITE/a [unsure]: one vantage of a site hears the other no more.
func (s *stage) missed(f []string) {
	s.votes = slices.Clone(s.votes)
	for i := range s.votes {
		if v := &s.votes[i]; v.Vantage == vantageOf(f[2]) && v.Object == placement.SiteID(v.Site) {
			s.seq++
			v.Without, v.Sure, v.Seq = vantageOf(f[0]), len(f) == 3, 1000+s.seq
		}
	}
	s.rev++
}

func (s *stage) silence(f []string) { s.expire(f) }

// expire SITE[/b] [OBJECT]: the lease of a site's votes, of one machine's, or of one of
// them, ran out.
func (s *stage) expire(f []string) {
	s.votes = slices.DeleteFunc(slices.Clone(s.votes), func(v placement.Vote) bool {
		return v.Site == siteOf(f[0]) && (f[0] == v.Site || v.Vantage == vantageOf(f[0])) && (len(f) == 1 || v.Object == s.object(f[1]))
	})
	s.rev++
}

// fail [site] SITE: it is dead, as everybody sees it. fail machine SITE/b: one of its
// two machines is; the other one says so, and the dead one's votes stand until its lease ends.
func (s *stage) fail(f []string) {
	if f[0] == "machine" {
		other := "a"
		if strings.HasSuffix(f[1], "/a") {
			other = "b"
		}
		s.missed([]string{f[1], "by", siteOf(f[1]) + "/" + other})
		return
	}
	s.votes = killed(s.inv, s.votes, f[len(f)-1], s.now.Sub(epoch()))
	s.rev++
}

// hold SITE: its vantage doubts all that it says of others. release SITE ends it.
func (s *stage) hold(f []string)    { s.doubt(f[0], true) }
func (s *stage) release(f []string) { s.doubt(f[0], false) }

func (s *stage) doubt(site string, on bool) {
	s.votes = slices.Clone(s.votes)
	for i := range s.votes {
		if v := &s.votes[i]; v.Site == site && !v.Own() {
			s.seq++
			v.Hold, v.Seq = on, 1000+s.seq
		}
	}
	s.rev++
}

// at SITE: what follows is seen by that site's node; "at all" ends it.
func (s *stage) from(f []string) { s.at = strings.TrimPrefix(f[0], "all") }

// domain NAME SITE …: these sites share a failure domain.
func (s *stage) domain(f []string) {
	s.change(func(inv *placement.Inventory) {
		for _, site := range f[1:] {
			inv.Site(site).Domains = []string{f[0]}
		}
	})
}

// recovery DELAY RAMP FLOOR
func (s *stage) recovery(f []string) {
	r := placement.DefaultRecovery()
	for i, d := range []*placement.Duration{&r.Delay, &r.Ramp} {
		if err := d.UnmarshalText([]byte(f[i])); err != nil {
			s.t.Fatal(err)
		}
	}
	r.Floor = s.number(f[2])
	s.change(func(inv *placement.Inventory) { inv.Recovery = &r })
}

// closed SERVICE: its policy fails closed, those of the others do not.
func (s *stage) closed(f []string) {
	s.change(func(inv *placement.Inventory) {
		p := inv.Policies[0]
		p.Name, p.AllDown = "closed", placement.NoData
		inv.Policies = append(inv.Policies, p)
		inv.Service(f[0]).Policy = "closed"
	})
}

// heal SITE: it lives and is well, as everybody sees it.
func (s *stage) heal(f []string) {
	up := allUp(s.inv)
	s.votes = slices.DeleteFunc(slices.Clone(s.votes), func(v placement.Vote) bool { return v.Site == f[0] || v.Object.Site == f[0] })
	for _, v := range up {
		if v.Site == f[0] || v.Object.Site == f[0] {
			v.Since = s.now
			s.votes = append(s.votes, v)
		}
	}
	s.rev++
}
