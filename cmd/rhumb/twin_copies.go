package main

import (
	"log/slog"
	"sync"

	"rhumb/authdns/transfer"
	"rhumb/placement/store"
)

// delayedCopies shows the zones that come from primaries as a twin may serve them: the
// versions of the input in force. The transfers go on beneath, and whether a primary
// has been silent for too long is of now. A zone of which no version waits is served in
// its first one at once.
type delayedCopies struct {
	copies
	changed func()

	mu    sync.Mutex
	names []string
	held  map[string]transfer.Held
}

// delay puts the stage before copies, where there is one.
func (t *twin) delay(in copies, changed func()) copies {
	if t == nil {
		return in
	}
	t.copies = &delayedCopies{copies: in, changed: changed, held: make(map[string]transfer.Held)}
	return t.copies
}

// Set says which zones are to be copied.
func (l *delayedCopies) Set(zones []transfer.Incoming) {
	l.copies.Set(zones)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = l.names[:0]
	for i := range zones {
		l.names = append(l.names, zones[i].Name)
	}
}

// Held is a zone as it is served here.
func (l *delayedCopies) Held(name string) (transfer.Held, bool) {
	now, ok := l.copies.Held(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	late, has := l.held[name]
	switch {
	case !has && ok && now.Data != nil:
		l.held[name] = now
		return now, ok
	case !has:
		return now, ok
	}
	late.Unserved = now.Unserved
	return late, true
}

// refs names the versions that are in force elsewhere now, and keeps their texts.
func (l *delayedCopies) refs(dir *store.LateDir, log *slog.Logger) map[string]store.LateCopy {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]store.LateCopy)
	for _, name := range l.names {
		h, ok := l.copies.Held(name)
		if !ok || h.Data == nil {
			continue
		}
		if err := dir.PutCopy(h.SHA256, h.Data); err != nil {
			log.Error("twin: a version of a zone is not kept, and will not be served", "zone", name, "err", err)
			continue
		}
		out[name] = store.LateCopy{SHA256: h.SHA256, Serial: h.Serial}
	}
	return out
}

// take puts the versions of an input in force.
func (l *delayedCopies) take(in *store.LateInput, dir *store.LateDir) {
	if l == nil || in == nil {
		return
	}
	l.mu.Lock()
	for name, c := range in.Copies {
		if l.held[name].SHA256 == c.SHA256 {
			continue
		}
		if text, err := dir.Copy(c.SHA256); err == nil { // else the version before stays
			l.held[name] = transfer.Held{Data: text, SHA256: c.SHA256, Serial: c.Serial}
		}
	}
	l.mu.Unlock()
	l.changed()
}
