package edge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// floor is the part of Run that keeps addresses, listeners and sources equal
// to the view. One goroutine.
func (a *Agent) floor(ctx context.Context) error {
	f := &shop{a: a, addrs: addresses{put: map[netip.Addr]bool{}}, open: map[port]net.Listener{}, running: map[runner]context.CancelFunc{}}
	defer f.close()
	if err := f.apply(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(memory)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			a.tab.forget(now)
			a.pulls.forget(now)
			a.guests.forget(now)
		case <-a.changed:
			if err := f.apply(ctx); err != nil {
				a.log.Error("apply services", "err", err)
			}
		}
	}
}

// shop is what is open at present.
type shop struct {
	a       *Agent
	addrs   addresses
	open    map[port]net.Listener
	running map[runner]context.CancelFunc
}

// runner is the upkeep of something that services have.
type runner interface {
	Run(ctx context.Context) error
}

// keeps lists what of a service needs upkeep.
func (s *service) keeps() []runner {
	out := []runner{s.source}
	if s.tls != nil {
		out = append(out, s.tls)
	}
	if s.feeds != nil {
		out = append(out, s.feeds)
	}
	return out
}

// apply opens what the view wants and then closes what it does not. VIPs come
// first and go last: while one is missing the kernel resets its clients.
func (f *shop) apply(ctx context.Context) error {
	v := f.a.view.Load()
	var ips []netip.Addr
	ports := map[port]bool{}
	for _, s := range v.services {
		for _, vip := range s.VIPs {
			ips = append(ips, vip.Addr())
			ports[portOf(vip)] = true
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	var errs []error
	if f.a.cfg.Addresses {
		errs = append(errs, f.addrs.add(slices.Compact(ips)))
	}
	f.sources(ctx, v)
	for p := range ports {
		errs = append(errs, f.listen(ctx, p))
	}
	for p, ln := range f.open {
		if !ports[p] {
			errs = append(errs, ln.Close())
			delete(f.open, p)
		}
	}
	if f.a.cfg.Addresses {
		errs = append(errs, f.addrs.keep(append(ips, f.a.sessionVIPs()...)))
	}
	return errors.Join(errs...)
}

func (f *shop) listen(ctx context.Context, p port) error {
	if ln := f.open[p]; ln != nil {
		return f.a.uploads.mark(ln, p)
	}
	ln, err := listen(ctx, p)
	if err != nil {
		return err
	}
	if err := f.a.uploads.mark(ln, p); err != nil {
		return errors.Join(err, ln.Close())
	}
	f.open[p] = ln
	f.a.wg.Go(func() { f.a.accept(ctx, ln) })
	return nil
}

// sources starts the upkeep of new services' objects and certificates, and
// stops that of services which went.
func (f *shop) sources(ctx context.Context, v *view) {
	wanted := map[runner]bool{}
	for _, s := range v.services {
		for _, r := range s.keeps() {
			wanted[r] = true
			if f.running[r] != nil {
				continue
			}
			sctx, cancel := context.WithCancel(ctx)
			f.running[r] = cancel
			f.a.wg.Go(func() {
				if err := r.Run(sctx); err != nil {
					f.a.log.Error("upkeep", "service", s.Name, "err", err)
				}
			})
		}
	}
	for src, cancel := range f.running {
		if !wanted[src] {
			cancel()
			delete(f.running, src)
		}
	}
}

// sessionVIPs are addresses that sessions still use, wanted or not.
func (a *Agent) sessionVIPs() []netip.Addr {
	var out []netip.Addr
	for _, s := range a.tab.all() {
		out = append(out, s.key.VIP.Addr())
	}
	return out
}

// close ends the listeners; addresses stay until the last session closed, so
// that its FIN leaves from an address this host still has.
func (f *shop) close() {
	for _, ln := range f.open {
		ln.Close()
	}
	for _, cancel := range f.running {
		cancel()
	}
	f.a.wg.Go(func() {
		for f.a.tab.len() > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if err := f.addrs.keep(nil); err != nil {
			f.a.log.Error("remove addresses", "err", err)
		}
	})
}
