package reserve

import "time"

// Who has refused is not asked for a while, and then by few at first: thousands of sessions
// may be without a Backup.
const (
	closedFor = 2 * time.Second
	tryEvery  = time.Second
	tryFirst  = 16
	tryMost   = 1 << 16 // beyond it the door is as any other
)

// Doors remembers which Backups have refused. It belongs to one goroutine. The zero value
// has all doors open.
type Doors struct{ shut map[string]*door }

// door is that of one who has refused.
type door struct {
	until time.Time // nobody enters before
	left  int       // so many may then, until the next pause
	step  int
}

// Refused closes the door of a Backup.
func (d *Doors) Refused(name string, now time.Time) {
	if d.shut == nil {
		d.shut = make(map[string]*door)
	}
	d.shut[name] = &door{until: now.Add(closedFor), left: tryFirst, step: tryFirst}
}

// Open tells whether a Backup may be asked.
func (d *Doors) Open(name string, now time.Time) bool {
	s := d.shut[name]
	return s == nil || !now.Before(s.until)
}

// enter counts one who asks.
func (d *Doors) enter(name string, now time.Time) {
	s := d.shut[name]
	if s == nil {
		return
	}
	if s.left--; s.left > 0 {
		return
	}
	if s.step *= 2; s.step > tryMost {
		delete(d.shut, name)
		return
	}
	s.left, s.until = s.step, now.Add(tryEvery)
}
