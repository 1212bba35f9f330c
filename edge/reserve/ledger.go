package reserve

import (
	"cmp"
	"maps"
	"slices"
)

// Limit is how many sessions a site of a capacity serves at most, by what is reserved: 95 %.
func Limit(capacity int) int { return int(int64(capacity) * 95 / 100) }

// Ledger is what a Backup has reserved. For each owner it counts the sessions whose records
// are kept, and for each loss those of all owners that are lost by it. The caller
// serializes its calls.
type Ledger struct {
	limit  int
	owners map[string]*account
	losses []loss // in order of name
}

// account is one owner's.
type account struct {
	count  int
	losses []int // indexes into Ledger.losses
}

// loss is what may fail at once.
type loss struct {
	name string
	sum  int
}

// NewLedger returns an empty ledger.
func NewLedger(limit int) *Ledger { return &Ledger{limit: limit, owners: make(map[string]*account)} }

// Follow takes the limit, and by which losses each owner is lost. Counts stay. An owner that
// is not named is lost by itself.
func (l *Ledger) Follow(limit int, losses map[string][]string) {
	l.limit, l.losses = limit, l.losses[:0]
	for name, a := range l.owners {
		if a.count == 0 {
			delete(l.owners, name)
		}
	}
	for name := range losses {
		if l.owners[name] == nil {
			l.owners[name] = &account{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.owners)) {
		a, by := l.owners[name], losses[name]
		if len(by) == 0 {
			by = []string{name}
		}
		a.losses = a.losses[:0]
		for _, n := range by {
			a.losses = append(a.losses, l.index(n))
		}
	}
	l.sort()
}

// index is that of a loss, which is added if it is not there.
func (l *Ledger) index(name string) int {
	for i := range l.losses {
		if l.losses[i].name == name {
			return i
		}
	}
	l.losses = append(l.losses, loss{name: name})
	return len(l.losses) - 1
}

// sort puts the losses in order and sums them up.
func (l *Ledger) sort() {
	was := slices.Clone(l.losses)
	slices.SortFunc(l.losses, func(a, b loss) int { return cmp.Compare(a.name, b.name) })
	for i := range l.losses {
		l.losses[i].sum = 0
	}
	for _, a := range l.owners {
		for i, n := range a.losses {
			a.losses[i] = l.index(was[n].name)
			l.losses[a.losses[i]].sum += a.count
		}
	}
}

// Add counts n more records of an owner, or fewer.
func (l *Ledger) Add(owner string, n int) {
	a := l.owners[owner]
	if a == nil {
		a = &account{losses: []int{l.index(owner)}}
		l.owners[owner] = a
		l.sort()
	}
	a.count += n
	for _, i := range a.losses {
		l.losses[i].sum += n
	}
}

// Room is how many more sessions of an owner may be reserved for, beside own ones: so that
// after the loss of any one thing that takes the owner along there are no more than the
// limit. It is negative where there are too many already.
func (l *Ledger) Room(owner string, own int) int {
	most := 0
	if a := l.owners[owner]; a != nil {
		for _, i := range a.losses {
			most = max(most, l.losses[i].sum)
		}
	}
	return l.limit - own - most
}

// Excess is a loss for which too much is reserved.
type Excess struct {
	Loss   string
	Owners []string // whom it takes along, in order
	Over   int
}

// Excess tells what is reserved beyond the limit, beside own sessions, in order of losses.
func (l *Ledger) Excess(own int) (out []Excess) {
	for i := range l.losses {
		if over := min(own+l.losses[i].sum-l.limit, l.losses[i].sum); over > 0 {
			out = append(out, Excess{l.losses[i].name, l.lostBy(i), over})
		}
	}
	return out
}

func (l *Ledger) lostBy(i int) (out []string) {
	for name, a := range l.owners {
		if a.count > 0 && slices.Contains(a.losses, i) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Reserved calls yield with each loss for which anything is reserved, in order.
func (l *Ledger) Reserved(yield func(loss string, sessions int)) {
	for i := range l.losses {
		if l.losses[i].sum > 0 {
			yield(l.losses[i].name, l.losses[i].sum)
		}
	}
}

// Worst is the loss that would bring the most sessions, and how many.
func (l *Ledger) Worst() (name string, sessions int) {
	for i := range l.losses {
		if l.losses[i].sum > sessions {
			name, sessions = l.losses[i].name, l.losses[i].sum
		}
	}
	return name, sessions
}

// Limit is the one that it was told.
func (l *Ledger) Limit() int { return l.limit }
