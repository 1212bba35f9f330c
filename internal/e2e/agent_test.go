//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"rhumb/internal/netlab"
)

// order is what an agent shall do inside its node: ask each question once, or all
// of them again and again until it is ended, or watch the kernel's routes.
type order struct {
	Ask   []question    `json:"ask,omitempty"`
	Poll  []question    `json:"poll,omitempty"`
	Every time.Duration `json:"every,omitempty"`
	FIB   bool          `json:"fib,omitempty"`
	Crowd *crowd        `json:"crowd,omitempty"`
	// Downloads are run all at once. None comes to its end before the file Gate is there.
	Downloads []download `json:"downloads,omitempty"`
	Gate      string     `json:"gate,omitempty"`
	// Visits are made every second until the agent is ended.
	Visits []visit `json:"visits,omitempty"`
}

// event is one line of an agent's report.
type event struct {
	Answer *answer      `json:"answer,omitempty"`
	Route  *routeChange `json:"route,omitempty"`
	Ready  bool         `json:"ready,omitempty"`

	Downloaded *downloaded `json:"downloaded,omitempty"`
	Visited    *visited    `json:"visited,omitempty"`
}

// routeChange is a change of the main table.
type routeChange struct {
	At     time.Time    `json:"at"`
	Gone   bool         `json:"gone"`
	Prefix netip.Prefix `json:"prefix"`
	Via    []netip.Addr `json:"via"`
}

// report writes events, one a line.
type report struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (r *report) send(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enc.Encode(e) // when nobody reads any more, the agent is ended too
}

// runAgent is the life of this program inside a node.
func runAgent(text string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		return 2
	}
	r := &report{enc: json.NewEncoder(os.Stdout)}
	silent := map[netip.AddrPort]bool{} // those who did not answer are not waited for again
	for i, q := range o.Ask {
		if !silent[q.Server] {
			q = q.patient()
		}
		a := q.ask(ctx)
		silent[q.Server] = a.Err != ""
		a.Q = i
		r.send(event{Answer: &a})
	}
	var wg sync.WaitGroup
	for i, q := range o.Poll {
		wg.Go(func() { r.poll(ctx, i, q, o.Every) })
	}
	if o.Crowd != nil {
		if err := o.Crowd.ask(ctx, func(a answer) { r.send(event{Answer: &a}) }); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			return 1
		}
	}
	if len(o.Downloads) > 0 {
		r.downloads(ctx, o.Downloads, gateOf(ctx, o.Gate))
	}
	if len(o.Visits) > 0 {
		r.visits(ctx, o.Visits)
	}
	if o.FIB {
		if err := r.watchRoutes(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			return 1
		}
	}
	wg.Wait()
	return 0
}

// poll asks one question at its rate; a late answer delays the next.
func (r *report) poll(ctx context.Context, i int, q question, every time.Duration) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(q.After):
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		a := q.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		a.Q = i
		r.send(event{Answer: &a})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *report) watchRoutes(ctx context.Context) error {
	fib, err := netlab.OpenFIB(0)
	if err != nil {
		return err
	}
	defer fib.Close()
	changes, err := fib.Watch(ctx)
	if err != nil {
		return err
	}
	r.send(event{Ready: true})
	for c := range changes {
		e := &routeChange{At: c.At, Gone: c.Gone, Prefix: c.Prefix}
		for _, h := range c.Hops {
			e.Via = append(e.Via, h.Addr)
		}
		r.send(event{Route: e})
	}
	return nil
}

// agent runs an order inside a node and passes its events on until it ends.
func (l *lab) agent(ctx context.Context, node string, o order, each func(event)) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	read := make(chan error, 1)
	go func() { read <- readEvents(r, each) }()
	code, err := l.execTo(ctx, w, node, "/usr/bin/env", envAgent+"="+string(text), exe)
	w.Close()
	if readErr := <-read; err == nil && readErr != nil && ctx.Err() == nil {
		err = readErr
	}
	if err == nil && code != 0 && ctx.Err() == nil {
		err = fmt.Errorf("agent in %s: exit %d", node, code)
	}
	return err
}

func readEvents(r *os.File, each func(event)) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return fmt.Errorf("agent says %q", in.Text())
		}
		each(e)
	}
	return in.Err()
}

// background runs an agent until the test or the returned function ends it.
func (l *lab) background(node string, o order, each func(event)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.agent(ctx, node, o, each); err != nil && ctx.Err() == nil {
			l.t.Errorf("agent in %s ended: %v", node, err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	l.t.Cleanup(stop)
	return stop
}
