package reserve

import (
	"slices"
	"time"
)

// Place is where a session of an owner has its Backup, and where it might have it.
type Place struct {
	Order  []string // who may be its Backup, the best first
	Backup string   // "": none
	came   string   // a site that was not in the order before and stands before the Backup
}

// Follow takes a new order. What follows from it Aim says.
func (p *Place) Follow(order []string) {
	was := p.Order
	p.Order = order
	if came := p.came; p.Backup != "" {
		p.came = ""
		for _, name := range order {
			if name == p.Backup {
				return
			}
			if name == came || !slices.Contains(was, name) {
				p.came = name
				return
			}
		}
	}
}

// Aim is the Backup that the session shall have, "" where nobody has room. Who has one keeps
// it while that stands in the order; only a site that has come since may take the session
// over, up to its fair share. So no more moves than must.
func (p *Place) Aim(s *Spread, doors *Doors, now time.Time) string {
	if p.Backup == "" || !slices.Contains(p.Order, p.Backup) {
		p.came = ""
		return s.Pick(p.Order, doors, now)
	}
	if p.came != "" && slices.Contains(p.Order, p.came) && doors.Open(p.came, now) && s.Wants(p.came) {
		return p.came
	}
	return p.Backup
}

// Move notes that the session has another Backup, or none.
func (p *Place) Move(s *Spread, to string) {
	if p.Backup == to {
		return
	}
	s.Leave(p.Backup)
	s.Take(to)
	if p.Backup = to; to == p.came {
		p.came = ""
	}
}

// Refused notes that a site does not keep the session, and reports whether it was its
// Backup.
func (p *Place) Refused(s *Spread, by string) bool {
	if p.came == by {
		p.came = ""
	}
	if p.Backup != by {
		return false
	}
	p.Move(s, "")
	return true
}
