//go:build e2e

package edge

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rhumb/edge/handsock"
)

// tap stands between a server and its agent, sees each message before the other side
// does, and may do something about it.
type tap struct {
	t     testing.TB
	site  string
	path  string
	agent string // path of its socket

	mu   sync.Mutex
	hook func(fromServer bool, m handsock.Message) verdict
}

// verdict is what becomes of a message.
type verdict uint8

const (
	pass   verdict = iota
	drop           // it is never answered
	denied         // its sender hears abort
	cut            // the connection ends
)

func (w *world) tap(site string) *tap {
	p := &tap{t: w.t, site: site, path: w.socket(site) + ".tap", agent: w.socket(site)}
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: p.path, Net: "unixpacket"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			server := handsock.NewConn(c, 0)
			agent, err := handsock.Dial(p.agent)
			if err != nil {
				server.Close()
				continue
			}
			go p.pump(server, agent, true)
			go p.pump(agent, server, false)
		}
	}()
	return p
}

// pump passes on until either side ends, and then ends the other: behind all that was
// said.
func (p *tap) pump(from, to *handsock.Conn, fromServer bool) {
	defer to.Close()
	for {
		m, f, err := from.Receive()
		if err != nil {
			return
		}
		p.mu.Lock()
		hook := p.hook
		p.mu.Unlock()
		v := pass
		if hook != nil {
			v = hook(fromServer, m)
		}
		switch {
		case v == pass && f != nil:
			_ = to.Send(m, f)
		case v == pass:
			_ = to.Send(m, nil)
		case v == denied:
			_ = from.Send(handsock.Message{Type: handsock.Abort, ID: m.ID, Text: "refused by the test"}, nil)
		case v == cut:
			from.Close()
		}
		if f != nil {
			f.Close()
		}
	}
}

func (p *tap) set(hook func(bool, handsock.Message) verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = hook
}

// point is a message of a hand-off.
type point struct {
	site       string
	fromServer bool
	typ        handsock.Type
	attached   bool
}

var (
	atWish    = point{"a", false, handsock.Offer, false}
	atOffer   = point{"a", true, handsock.Offer, true}
	atShown   = point{"b", false, handsock.Offer, true}
	atReady   = point{"b", true, handsock.Ready, false}
	atCommit  = point{"a", false, handsock.Commit, false}
	atStart   = point{"b", false, handsock.Commit, false}
	atServing = point{"b", true, handsock.Active, false}
)

// What a client may see. Nobody ever sees a wrong octet, an early orderly end of a
// living server, or silence.
const (
	goesOn      = "goes on"
	isReset     = "reset"
	onOrReset   = "goes on or reset"
	serverEnded = "ended with its server"
	onOrEnded   = "goes on or ended with its server"
)

// TestGuestDeaths kills each party of a hand-off at each of its messages, and has
// servers refuse, fall silent and hang up: there is never more than one owner, and a
// session that ends does so audibly.
func TestGuestDeaths(t *testing.T) {
	w := newWorld(t)
	w.deadline = time.Millisecond
	d := &deaths{guestWorld: w.guests(oneSecond), taps: map[string]*tap{"a": w.tap("a"), "b": w.tap("b")}, servers: map[string]*exec.Cmd{}, whole: t}
	for _, tc := range []struct {
		at    point
		kill  string // agent-a, server-b and so on
		do    verdict
		route string // where the client's packets go
		want  string
	}{
		{at: atWish, kill: "agent-a", route: "a", want: goesOn}, {at: atWish, kill: "agent-b", route: "a", want: goesOn},
		{at: atWish, kill: "server-a", route: "a", want: serverEnded}, {at: atWish, kill: "server-b", route: "b", want: goesOn},
		{at: atOffer, kill: "agent-a", route: "a", want: goesOn}, {at: atOffer, kill: "agent-b", route: "a", want: goesOn},
		{at: atOffer, kill: "server-a", route: "a", want: serverEnded}, {at: atOffer, kill: "server-b", route: "b", want: goesOn},
		// Here and at ready, the word of its end, by the tap at a, and the word that b is ready
		// come by two ways: with that first, the session was committed, and b goes on with it.
		{at: atShown, kill: "agent-a", route: "a", want: goesOn}, {at: atShown, kill: "agent-b", route: "a", want: goesOn},
		{at: atShown, kill: "server-a", route: "a", want: onOrEnded}, {at: atShown, kill: "server-b", route: "b", want: goesOn},
		{at: atReady, kill: "agent-a", route: "a", want: goesOn}, {at: atReady, kill: "agent-b", route: "a", want: goesOn},
		{at: atReady, kill: "server-a", route: "a", want: onOrEnded},
		// The tap brings the word of its end after the word that it is ready: commit may come between.
		{at: atReady, kill: "server-b", route: "b", want: onOrReset},
		{at: atCommit, kill: "agent-a", route: "b", want: goesOn}, {at: atCommit, kill: "agent-b", route: "a", want: goesOn},
		{at: atCommit, kill: "server-a", route: "b", want: goesOn}, {at: atCommit, kill: "server-b", route: "b", want: onOrReset},
		{at: atStart, kill: "agent-a", route: "b", want: goesOn}, {at: atStart, kill: "agent-b", route: "b", want: goesOn},
		{at: atStart, kill: "server-a", route: "b", want: goesOn}, {at: atStart, kill: "server-b", route: "b", want: isReset},
		{at: atServing, kill: "agent-a", route: "b", want: goesOn}, {at: atServing, kill: "agent-b", route: "b", want: goesOn},
		{at: atServing, kill: "server-a", route: "b", want: goesOn}, {at: atServing, kill: "server-b", route: "b", want: serverEnded},
		{at: atWish, do: denied, route: "b", want: goesOn}, {at: atWish, do: drop, route: "b", want: goesOn}, {at: atWish, do: cut, route: "b", want: goesOn},
		{at: atShown, do: denied, route: "b", want: goesOn}, {at: atShown, do: drop, route: "b", want: goesOn}, {at: atShown, do: cut, route: "b", want: goesOn},
		{at: atReady, do: drop, route: "b", want: goesOn}, {at: atReady, do: cut, route: "b", want: goesOn},
		{at: atCommit, do: cut, route: "b", want: onOrReset}, {at: atStart, do: cut, route: "b", want: isReset},
	} {
		name := fmt.Sprintf("%s at %s/%s", tc.kill, tc.at.site, tc.at.typ)
		if tc.kill == "" {
			name = fmt.Sprintf("%s at %s/%s", [...]string{"pass", "drop", "refuse", "cut"}[tc.do], tc.at.site, tc.at.typ)
		}
		t.Run(name, func(t *testing.T) { d.run(t, tc.at, tc.kill, tc.do, tc.route, tc.want) })
	}
}

func oneSecond(x *agentArgs) { x.PullAfter, x.Patience = time.Hour, time.Second }

// deaths is a world in which everybody may die and comes back.
type deaths struct {
	guestWorld
	taps    map[string]*tap
	servers map[string]*exec.Cmd
	whole   testing.TB
	load    *process
}

// alive starts whoever is dead.
func (d *deaths) alive() {
	t := d.t
	t.Helper()
	d.t = d.whole // they outlive a subtest
	defer func() { d.t = t }()
	for _, site := range []string{"a", "b"} {
		if p := d.agentOf(site); (*p).cmd.ProcessState != nil {
			*p = d.guestAgent(site, oneSecond)
		}
		if s := d.servers[site]; s == nil || s.ProcessState != nil {
			d.servers[site] = d.sampleAt(site, d.taps[site].path)
		}
	}
}

func (d *deaths) agentOf(site string) **process {
	if site == "a" {
		return &d.a
	}
	return &d.b
}

// kill ends a process and waits for its end.
func (d *deaths) kill(who string) {
	role, site, _ := strings.Cut(who, "-")
	cmd := d.servers[site]
	if role == "agent" {
		// The test binary runs below "ip netns exec", which execs it: one process.
		cmd = (*d.agentOf(site)).cmd
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
}

func (d *deaths) run(t *testing.T, at point, kill string, do verdict, route, want string) {
	d.t = t
	d.alive()
	d.ready(d.a, d.b)
	d.route("a")
	load := d.start("c", "stream", streamArgs{N: 1, VIP: vip4, Length: 1 << 20, Upload: 64 << 10, Hold: 256 << 10, Beat: 20 * time.Millisecond, Limit: 40 * time.Second})
	var word string
	load.next(&word)
	d.route(route)
	reached := make(chan struct{})
	once := sync.OnceFunc(func() {
		if kill != "" {
			d.kill(kill)
		}
		close(reached)
	})
	var first sync.Once
	d.taps[at.site].set(func(fromServer bool, m handsock.Message) verdict {
		v := pass
		if fromServer == at.fromServer && m.Type == at.typ && m.Attached == at.attached && m.ID != 0 {
			first.Do(func() { v = do; once() })
		}
		return v
	})
	d.a.tell("drain b")
	select {
	case <-reached:
	case <-time.After(30 * time.Second):
		t.Fatal("the hand-off never came to this point")
	}
	if kill != "agent-a" {
		d.a.next(&word)
	}
	d.alive()
	d.ready(d.a, d.b)
	d.taps[at.site].set(nil)
	d.settled(load, want)
}

// settled lets the client go to its end and judges what it saw.
func (d *deaths) settled(load *process, want string) {
	d.t.Helper()
	var word string
	d.a.ask("undrain", &word)
	d.await("end of the moves", func() bool {
		for _, p := range []*process{d.a, d.b} {
			if r := d.state(p); r.Handing[0].Moving > 0 {
				return false
			}
		}
		return true
	})
	load.tell("end")
	var rs []result
	load.next(&rs)
	got := rs[0].Err
	ok := map[string]bool{
		goesOn:      got == "",
		isReset:     strings.Contains(got, "reset by peer") || strings.Contains(got, "broken pipe"),
		serverEnded: got != "" && !strings.Contains(got, "timeout") && !strings.Contains(got, "want"),
	}
	ok[onOrReset] = ok[goesOn] || ok[isReset]
	ok[onOrEnded] = ok[goesOn] || ok[serverEnded]
	if !ok[want] {
		d.t.Errorf("client: %q, want: %s", got, want)
	}
	for _, p := range []*process{d.a, d.b} {
		d.await("end of its sockets", func() bool { return d.flows(p) == 0 })
	}
	if got != "" {
		d.t.Logf("client: %s", got)
	}
}
