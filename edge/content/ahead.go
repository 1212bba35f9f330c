package content

import "context"

// interest is who wants a copy of the origin's.
type interest struct {
	ctx    context.Context // of the copy: it outlives the request that began it
	cancel context.CancelFunc
	wanted bool // by a request or a session; guarded by Origin.mu
}

// Ahead begins the copy of a name that no request has asked for. It takes no other
// copy's place. over is closed when the copy is whole or will not be; drop gives it up
// unless somebody has come to want it meanwhile.
func (o *Origin) Ahead(name string) (over <-chan struct{}, drop func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.copies[name] == nil && len(o.copies) >= originKept {
		return isOver(), func() {}
	}
	f := o.begin(name)
	return f.done, func() { o.drop(name, f) }
}

// drop ends a copy on its way that nobody has come to want. A complete one stays: it
// is as good as any, and goes when its place is needed.
func (o *Origin) drop(name string, f *fetch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.wanted || f.whole() != nil || o.copies[name] != f {
		return
	}
	delete(o.copies, name)
	f.cancel()
}

// Coming reports whether a copy of the name is on its way.
func (o *Origin) Coming(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.copies[name]
	if f == nil {
		return false
	}
	select {
	case <-f.done:
		return false
	default:
		return true
	}
}

// Coming: a file is here or it is not.
func (l *Library) Coming(string) bool { return false }

// Ahead indexes the file of a name now, if the next look at the directory has yet to
// come. over is closed when it returns; drop does nothing.
func (l *Library) Ahead(name string) (over <-chan struct{}, drop func()) {
	// What is wrong with the file is told by the look.
	_, _ = l.object(name)
	return isOver(), func() {}
}

// isOver is a channel of something that has ended.
func isOver() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
