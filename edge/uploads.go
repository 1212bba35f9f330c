package edge

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/edge/frame"
	"rhumb/edge/hold"
	"rhumb/edge/tcprepair"
	"rhumb/edge/upload"
)

// Uploads say what a service takes from its clients. Zero: nothing.
type Uploads struct {
	Dir string // where objects go, by their names
	Max int64  // octets of one object; 0: 1 GiB
}

// Bounds of the uploads of a service that are on their way.
const (
	uploadMax   = 1 << 30
	uploadsMost = 256
	stagedMost  = 32 // times the largest object
)

func (u Uploads) limits() upload.Limits {
	most := or(u.Max, uploadMax)
	return upload.Limits{Size: most, Uploads: uploadsMost, Bytes: stagedMost * most}
}

// checkUploads: over TLS they are read by our record layer, and what L2 promises needs a
// Backup that has the secrets.
func (s Service) checkUploads() error {
	switch {
	case s.Uploads == (Uploads{}) && s.Freshness == FreshL2:
		return errors.New("freshness L2 is for uploads, and there are none")
	case s.Uploads == (Uploads{}):
		return nil
	case !strings.HasPrefix(s.Uploads.Dir, "/") || s.Uploads.Max < 0:
		return errors.New("uploads need an absolute directory, and no negative size")
	case s.Cert != "" && s.Export != ExportGroup && (s.Export != ExportSite || s.Freshness == FreshL2):
		return errors.New("uploads over TLS need its secrets: export group, or site below L2")
	case s.Freshness == FreshL2 && s.Revival != ModeAct: // where only the mode observes, they are refused
		return errors.New("freshness L2 needs revival act")
	}
	return nil
}

// held reports whether acknowledgements to the clients of a service wait. Over TLS they do
// for uploads alone: a session that is revived takes no further request.
func (s *service) held() bool {
	return s != nil && s.waits() && s.revives() && (s.tls == nil || s.Freshness == FreshL2 && s.tls.export == ExportGroup)
}

// uploads has what of objects is on its way here: from clients of this site, and, as
// their Backup, from those of others. Safe for concurrent use.
type uploads struct {
	a     *Agent
	hold  atomic.Pointer[hold.Hold]
	woken chan struct{}

	mu    sync.Mutex
	own   map[frame.Key]*sending
	wards map[frame.Key]*ward
	// failed holds back the repetition of one complaint; it is open's.
	failed bool
	// at is told of each point that an upload passes; tests stop there.
	at func(point string)
}

// Points of an upload.
const (
	pointBegun     = "begun"     // at the owner: the Backup has it, no octet is committed
	pointCommitted = "committed" // at the owner: octets are, their acknowledgement has not left
	pointWhole     = "whole"     // at the owner: all are, nobody has been asked to publish
	pointPublish   = "publish"   // at the Backup: asked to
	pointPublished = "published" // at the Backup: has, the owner has not heard
	pointAnswer    = "answer"    // at the owner: it has published, the answer has not begun
	pointAnswered  = "answered"  // at the owner: the Backup has the answer's record, nothing was sent
	pointSent      = "sent"      // at the owner: the answer is with the kernel
)

func newUploads(a *Agent) *uploads {
	return &uploads{a: a, woken: make(chan struct{}, 1), own: map[frame.Key]*sending{}, wards: map[frame.Key]*ward{}, at: func(string) {}}
}

func (u *uploads) wake() {
	select {
	case u.woken <- struct{}{}:
	default:
	}
}

// watched are the addresses of services whose acknowledgements are held.
func (u *uploads) watched() (out []netip.AddrPort) {
	for _, s := range u.a.view.Load().services {
		if s.held() {
			out = append(out, s.VIPs...)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// open begins to hold acknowledgements once there is a service that wants it. Where
// that fails one with freshness L2 takes no uploads: what it promises could not be kept.
func (u *uploads) open(ctx context.Context, g *errgroup.Group) {
	vips := u.watched()
	h := u.hold.Load()
	if !u.a.moves.Backups || h == nil && len(vips) == 0 {
		return
	}
	if h == nil {
		var err error
		if h, err = hold.Open(u.a.log, u.a.m.uploads.waited); err != nil {
			if !u.failed {
				u.a.log.Warn("acknowledgements cannot be held: uploads with freshness L2 are refused, and with L1 a crash may cost requests", "err", err)
			}
			u.failed = true
			return
		}
		g.Go(func() error { return h.Run(ctx) })
	}
	if err := h.Watch(vips); err != nil {
		u.a.log.Warn("acknowledgements are not held", "err", err)
		return
	}
	if u.hold.Swap(h) == nil {
		u.a.wake() // listeners get their mark
	}
}

// Run follows the services and removes what nobody goes on with.
func (u *uploads) Run(ctx context.Context, g *errgroup.Group) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.woken:
			u.open(ctx, g)
		case now := <-tick.C:
			if u.hold.Load() == nil {
				u.open(ctx, g)
			}
			u.sweep(now)
		}
	}
}

func (u *uploads) sweep(now time.Time) {
	u.mu.Lock()
	wards := maps.Clone(u.wards)
	u.mu.Unlock()
	for k, w := range wards { // not under mu: who has the records asks for wards
		if w.idle(now) > recordLife && !u.a.replica.has(k) {
			u.remove(k, w)
		}
	}
	count, octets := 0, int64(0)
	for _, s := range u.a.view.Load().services {
		if s.store == nil {
			continue
		}
		if err := s.store.Sweep(now); err != nil {
			u.a.log.Warn("remove old uploads", "service", s.Name, "err", err)
		}
		n, b := s.store.Len()
		count, octets = count+n, octets+b
	}
	u.a.m.uploads.count(count, octets)
	u.a.m.uploads.watch(u.hold.Load(), len(u.watched()))
}

// drop gives up what was staged.
func (u *uploads) drop(f *upload.File) {
	if err := f.Drop(); err != nil {
		u.a.log.Warn("remove an upload", "err", err)
	}
}

// mark tells the listener of a port whether the connections it makes are held.
func (u *uploads) mark(ln net.Listener, p port) error {
	t, ok := ln.(*net.TCPListener)
	if !ok || u.hold.Load() == nil {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(u.watched(), func(v netip.AddrPort) bool { return portOf(v) == p }) {
		return hold.Apply(raw)
	}
	return hold.Exempt(raw)
}

// exempt lets a connection acknowledge as it likes.
func (u *uploads) exempt(c *net.TCPConn, k frame.Key) {
	h := u.hold.Load()
	if h == nil {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = hold.Exempt(raw) // a connection that is gone
	}
	h.Leave(heldFlow(k))
}

func heldFlow(k frame.Key) hold.Flow { return hold.Flow{Local: k.VIP, Peer: k.Client} }

// admit begins the hold of a new session, from its first octet on, if its service wants
// that and it has a record.
func (u *uploads) admit(s *session) {
	h := u.hold.Load()
	switch {
	case h == nil || !s.svc.held():
	case s.changed == nil:
		u.exempt(s.conn, s.key)
	default:
		s.hold = h
		h.Enter(heldFlow(s.key), s.reg.RcvNxt)
	}
}

// orphaned ends what an earlier process left of a connection that nobody goes on with. Its
// socket is still marked, and its FIN would wait for a session that does not come; a reset
// is not held.
func (u *uploads) orphaned(k frame.Key) {
	if u.hold.Load() == nil {
		return
	}
	if _, err := tcprepair.Destroy(k.VIP, k.Client); err != nil {
		u.a.log.Debug("end what an earlier process left", "err", err)
	}
}

// handle takes a word about an upload. It runs on the link's reader.
func (u *uploads) handle(l *link, f frame.Frame) {
	m, err := upload.Decode(f.Payload)
	if err != nil {
		u.a.replica.broken(l, err)
		return
	}
	switch m.Kind {
	case upload.Open, upload.OpenSealed:
		u.opened(l, f, m)
	case upload.Drop:
		u.dropped(l, f, m)
	case upload.Data, upload.Place:
		u.came(l, f, m)
	case upload.Publish:
		u.a.wg.Go(func() { u.publish(l, f, m) }) // to disk
	default:
		u.mu.Lock()
		s := u.own[f.Key]
		u.mu.Unlock()
		if s != nil && s.id == m.ID {
			s.told(l, f.Seq, m)
		}
	}
}
