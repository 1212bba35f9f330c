package bfd

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// open makes a session's sockets where its neighbour's link is there.
func (w *Watcher) open(p *peer, now time.Time) {
	p.retry = now.Add(idle)
	l, err := findLink(p.target.Address, p.target.Local)
	if err != nil {
		w.report(p, err)
		return
	}
	rx, err := w.listen(l, p.target.Port)
	if err != nil {
		w.report(p, err)
		return
	}
	tx, err := l.dial(p.target.Address, p.target.Port, w.dice.Uint32())
	if err != nil {
		w.report(p, err)
		w.sweep()
		return
	}
	p.tx, p.rx = tx, rx
	w.report(p, nil)
	p.pace, p.due = p.session.Interval(), now // the first beat
}

// listen returns the listener of a link and port, and opens it for its first session.
func (w *Watcher) listen(l link, port uint16) (*listener, error) {
	for _, s := range w.socks {
		if s.link == l && s.port == port {
			return s, nil
		}
	}
	fd, err := l.open(port)
	if err != nil {
		return nil, err
	}
	s := &listener{l, port, fd}
	w.socks = append(w.socks, s)
	w.list()
	return s, nil
}

// drop closes a session's sockets; turn makes them anew when it can.
func (w *Watcher) drop(p *peer) {
	unix.Close(p.tx)
	w.report(p, p.broken)
	p.tx, p.rx, p.due, p.broken = -1, nil, time.Time{}, nil
	w.sweep()
}

// sweep closes listeners without a session.
func (w *Watcher) sweep() {
	w.socks = slices.DeleteFunc(w.socks, func(l *listener) bool {
		used := slices.ContainsFunc(w.peers, func(p *peer) bool { return p.rx == l })
		if !used {
			unix.Close(l.fd)
		}
		return !used
	})
	w.list()
}

// list renews what the thread waits for.
func (w *Watcher) list() {
	w.fds = append(w.fds[:0], unix.PollFd{Fd: int32(w.wake), Events: unix.POLLIN})
	for _, s := range w.socks {
		w.fds = append(w.fds, unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN})
	}
}

// report tells of trouble once, and of its end.
func (w *Watcher) report(p *peer, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != p.trouble && w.cfg.Trouble != nil {
		w.cfg.Trouble(p.target.Address, err)
	}
	p.trouble = text
}

// close gives every descriptor back; the thread has ended its work.
func (w *Watcher) close() {
	for _, p := range w.peers {
		if p.tx >= 0 {
			unix.Close(p.tx)
		}
		p.tx, p.rx = -1, nil
	}
	w.sweep()
}
