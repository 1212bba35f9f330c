package vip

import "time"

// runner drives one lease: it tells the machine the time, and does its steps. Only
// the agent's loop uses it.
type runner struct {
	agent   *Agent
	place   int // in the configuration
	lease   Lease
	machine *lease
	kernel  kernel

	ours       bool
	told       int           // announcements since the take-over
	tellAt     time.Duration // when the next one is due, while ours
	lookAt     time.Duration
	keepAt     time.Duration
	sick       time.Duration // until then the kernel is not asked again
	complained bool          // the kernel's refusal is in the log
}

// begin silences the host, and starts from nothing.
func (r *runner) begin(boot uint64) error {
	if err := r.kernel.start(); err != nil {
		return err
	}
	a := r.agent
	now := a.clock.now()
	r.machine = newLease(nameHash(r.lease.Name), holder{a.self, boot}, a.config.order(r.lease.Name), DefaultTiming(), now)
	r.keepAt = now + keepEvery
	return nil
}

// end gives up the lease, so that the next owner need not wait until it runs out.
func (r *runner) end() {
	r.do(r.machine.want(r.agent.clock.now(), false))
	if r.machine.phase == leaving {
		r.agent.log.Error("vip: the addresses could not be silenced; the permission of the kernel runs out", "lease", r.lease.Name)
	}
}

// tick does what time demands, and tells when it wants to be called again.
func (r *runner) tick(now time.Duration) time.Duration {
	if now >= r.lookAt {
		r.lookAt = now + lookEvery
		r.do(r.machine.want(now, r.fit(now)))
	} else {
		r.do(r.machine.tick(now))
	}
	switch {
	case r.ours && now >= r.tellAt:
		r.tell(now)
	case !r.ours && now >= r.keepAt:
		r.keepAt = now + keepEvery
		r.failed("keep the rules", r.kernel.forbid())
	}
	next := min(r.machine.wake(), r.lookAt)
	if r.ours {
		next = min(next, r.tellAt)
	}
	return next
}

// fit tells whether this node may own the lease.
func (r *runner) fit(now time.Duration) bool {
	return r.agent.wanted.Load() && now >= r.sick && r.kernel.up()
}

// tell announces the addresses.
func (r *runner) tell(now time.Duration) {
	r.failed("announce", r.kernel.tell())
	r.tellAt = now + announcements(r.told)
	r.told++
}

// do does the machine's steps in order. Those behind a refusal of the kernel are not done.
func (r *runner) do(steps []step) {
	for _, s := range steps {
		switch s.do {
		case send:
			r.agent.send(s.to, s.msg)
		case permit:
			if r.failed("permit", r.kernel.permit(s.until)) {
				now := r.agent.clock.now()
				r.sick = now + sickFor
				// The member gives up, and another one has a kernel that works.
				r.do(r.machine.want(now, false))
				return
			}
			r.complained = false
		case take:
			r.told = 0
			r.tell(r.agent.clock.now()) // nothing that could block goes before it
			r.change(true)
		case forbid:
			failed := r.failed("forbid", r.kernel.forbid())
			r.change(false)
			if failed {
				return // the machine asks again
			}
			r.do(r.machine.silenced(r.agent.clock.now()))
		}
	}
	r.show()
}

// failed counts an error of the kernel, and logs the first of a row.
func (r *runner) failed(what string, err error) bool {
	if err == nil {
		return false
	}
	r.agent.metrics.errors.WithLabelValues(r.lease.Name).Inc()
	if !r.complained {
		r.complained = true
		r.agent.log.Error("vip: "+what, "lease", r.lease.Name, "err", err)
	}
	return true
}

// change tells everybody that the lease became ours, or ceased to be.
func (r *runner) change(ours bool) {
	if r.ours == ours {
		return
	}
	r.ours = ours
	a, to, owner := r.agent, "lost", 0.0
	if ours {
		to, owner = "taken", 1
	}
	a.metrics.owner.WithLabelValues(r.lease.Name).Set(owner)
	a.metrics.changes.WithLabelValues(r.lease.Name, to).Inc()
	a.log.Info("vip: lease "+to, "lease", r.lease.Name)
	if a.config.OnChange != nil {
		a.config.OnChange(r.lease.Name, ours)
	}
	r.show()
}

// show publishes what is known of the lease.
func (r *runner) show() {
	a, g, owner := r.agent, r.machine.grants, ""
	if g.last >= 0 && a.clock.now() < g.free {
		owner = a.config.Members[g.last].Name
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.states[r.place].Ours, a.states[r.place].Owner = r.ours, owner
}
