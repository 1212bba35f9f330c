package reserve

import "time"

// The bound on a site's part of an owner's sessions, beside its fair share: c = 5/4.
const (
	boundNum = 5
	boundDen = 4
)

// Spread is how an owner's sessions are spread over its Backups. It belongs to one
// goroutine. The zero value is empty.
type Spread struct {
	seats   map[string]*seat
	weights int64 // of those who don't share a domain with the owner, or of all
	total   int64 // sessions that have a Backup
}

// seat is one Backup's part.
type seat struct {
	weight int64 // 0: it is none any more
	count  int64
}

// Follow takes who may be Backups from now on. Counts stay: sessions move one by one.
func (s *Spread) Follow(sites []Site) {
	if s.seats == nil {
		s.seats = make(map[string]*seat)
	}
	for name, st := range s.seats {
		if st.weight = 0; st.count == 0 {
			delete(s.seats, name)
		}
	}
	var apart, all int64
	for i := range sites {
		w := int64(max(sites[i].Weight, 0))
		s.seat(sites[i].Name).weight = w
		if all += w; !sites[i].Shares {
			apart += w
		}
	}
	if s.weights = apart; apart == 0 {
		s.weights = all
	}
}

func (s *Spread) seat(name string) *seat {
	if s.seats == nil {
		s.seats = make(map[string]*seat)
	}
	st := s.seats[name]
	if st == nil {
		st = &seat{}
		s.seats[name] = st
	}
	return st
}

// Take notes that a session has a Backup, Leave that it has it no more; "" is none.
func (s *Spread) Take(name string) { s.change(name, 1) }

// Leave undoes Take.
func (s *Spread) Leave(name string) { s.change(name, -1) }

func (s *Spread) change(name string, by int64) {
	if name != "" {
		s.seat(name).count += by
		s.total += by
	}
}

// Pick is the Backup for a session without one, by its order: the first within the bound
// whose door is open, else the first whose door is open, else "".
func (s *Spread) Pick(order []string, doors *Doors, now time.Time) string {
	beyond := ""
	for _, name := range order {
		if !doors.Open(name, now) {
			continue
		}
		if s.within(name, s.total+1, boundNum, boundDen) {
			doors.enter(name, now)
			return name
		}
		if beyond == "" {
			beyond = name
		}
	}
	doors.enter(beyond, now)
	return beyond
}

// Wants tells whether a site that has come has less than its fair share: until then it takes
// sessions over from others.
func (s *Spread) Wants(name string) bool { return s.within(name, s.total, 1, 1) }

// within tells whether one session more keeps a site within num/den of its share of total.
func (s *Spread) within(name string, total, num, den int64) bool {
	st := s.seats[name]
	if st == nil || s.weights == 0 {
		return false
	}
	// count + 1 <= ceil(num/den * total * weight / weights)
	div := den * s.weights
	return st.count+1 <= (num*total*st.weight+div-1)/div
}
