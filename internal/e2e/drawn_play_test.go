//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// unitRoles are the roles of a site's processes, as their command lines end.
func unitRoles() map[string]string {
	return map[string]string{"director": "placement", "dns": "authdns", "bgp": "bgp,health", "edge": "edge"}
}

// player does to a lab what a schedule says, and is the service manager of its sites:
// what ends by itself is started again, and told.
type player struct {
	*lab
	schedule netlab.Schedule
	began    time.Time
	pids     map[string]int // by site and unit: the process that runs
	away     map[string]bool
	// ended are processes that went by themselves.
	ended []string
	// told are the fleet's events about sites and clusters.
	told  []placement.Event
	noted time.Time
}

func newPlayer(l *lab, s netlab.Schedule) *player {
	p := &player{lab: l, schedule: s, pids: map[string]int{}, away: map[string]bool{}}
	p.look()
	return p
}

// act is the begin or the end of a trouble.
type act struct {
	at    time.Duration
	end   bool
	fault netlab.Trouble
}

// acts puts begins and ends in order. Where one ends as another begins, it ends first.
func acts(all []netlab.Trouble) []act {
	var out []act
	for _, f := range all {
		out = append(out, act{f.At, false, f}, act{f.End(), true, f})
	}
	slices.SortStableFunc(out, func(a, b act) int {
		switch c := cmp.Compare(a.at, b.at); {
		case c != 0 || a.end == b.end:
			return c
		case a.end:
			return -1
		}
		return 1
	})
	return out
}

// play runs the schedule to its end.
func (p *player) play() {
	p.began = time.Now()
	for _, a := range acts(p.schedule.Troubles) {
		for {
			wait := time.Until(p.began.Add(a.at))
			if wait <= 0 {
				break
			}
			time.Sleep(min(wait, 2*time.Second))
			p.revive()
			if time.Since(p.noted) > 15*time.Second {
				p.note()
				p.noted = time.Now()
			}
		}
		if !p.running() {
			p.t.Fatalf("the lab ended before %s at %.3f s", a.fault, a.at.Seconds())
		}
		p.do(a)
	}
}

// do begins or ends one trouble and draws it.
func (p *player) do(a act) {
	f := a.fault
	state := string(f.Kind)
	if a.end {
		state = "well"
		p.lift(f)
	} else {
		p.breakBy(f)
	}
	lane := "fault " + f.Target()
	if f.Kind == netlab.LinkLossy {
		lane += " loss"
	}
	p.line.set(lane, time.Now(), state)
}

// faultOf is the lab's fault for a trouble of the network.
func (p *player) faultOf(f netlab.Trouble) (verb, node string, args map[string]string) {
	args = map[string]string{"towards": f.Towards}
	switch f.Kind {
	case netlab.LinkCut:
		return "cut", f.Node, args
	case netlab.LinkSilent: // from the far end: the near one may have a lossy spell
		args["towards"], args["share"] = f.Node, "1"
		return "lossy", f.Towards, args
	case netlab.LinkOneWay:
		return "mute", f.Node, args
	case netlab.LinkLossy:
		args["share"] = strconv.FormatFloat(f.Share, 'f', 4, 64)
		return "lossy", f.Node, args
	case netlab.PathDark:
		var all []string
		for _, a := range p.node(f.Towards).Addresses {
			all = append(all, netlabPrefix(a.String(), a.Is6()))
		}
		args["prefixes"] = strings.Join(all, ",")
		return "blackhole", f.Node, args
	case netlab.PowerOff:
		return "kill", f.Node, map[string]string{}
	}
	return "", "", nil
}

func netlabPrefix(addr string, v6 bool) string {
	if v6 {
		return addr + "/128"
	}
	return addr + "/32"
}

func (p *player) breakBy(f netlab.Trouble) {
	key := f.Node + " " + f.Unit
	switch f.Kind {
	case netlab.UnitKilled, netlab.MemberLost:
		p.away[key] = true
		p.control("kill", f.Node, map[string]string{"unit": f.Unit}, nil)
		return
	case netlab.UnitStopped:
		p.stop(key, syscall.SIGSTOP)
		return
	case netlab.PowerOff:
		for unit := range unitRoles() {
			p.away[f.Node+" "+unit] = true
		}
	}
	verb, node, args := p.faultOf(f)
	p.control(verb, node, args, nil)
}

func (p *player) lift(f netlab.Trouble) {
	key := f.Node + " " + f.Unit
	switch f.Kind {
	case netlab.UnitKilled, netlab.MemberLost:
		p.startAgain(f.Node, f.Unit)
		return
	case netlab.UnitStopped:
		p.stop(key, syscall.SIGCONT)
		return
	}
	verb, node, args := p.faultOf(f)
	p.control("lift", node, map[string]string{"kind": verb, "towards": args["towards"]}, nil)
	if f.Kind == netlab.PowerOff {
		for _, unit := range []string{"director", "origin", "dns", "bgp", "edge"} {
			p.startAgain(f.Node, unit)
		}
	}
}

// startAgain starts a process, which is expected to run from then on. Until it is the
// program that was asked for it has no command line to be found by.
func (p *player) startAgain(site, unit string) {
	key := site + " " + unit
	p.control("heal", site, map[string]string{"unit": unit}, nil)
	for end := time.Now().Add(5 * time.Second); describe(p.pids[key]) == "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		p.look()
	}
	delete(p.away, key)
}

// stop sends a process SIGSTOP or SIGCONT. One that has just ended by itself is gone.
func (p *player) stop(key string, sig syscall.Signal) {
	if pid := p.pids[key]; pid == 0 || syscall.Kill(pid, sig) != nil {
		p.line.eventf("%v: %s does not run", sig, key)
	}
}

// revive starts what ended by itself, and keeps the pids.
func (p *player) revive() {
	for _, site := range sites() {
		for unit := range unitRoles() {
			key := site + " " + unit
			if p.away[key] || describe(p.pids[key]) != "" {
				continue
			}
			p.ended = append(p.ended, fmt.Sprintf("%s after %.1f s", key, time.Since(p.began).Seconds()))
			p.line.eventf("%s ended by itself", key)
			p.startAgain(site, unit)
		}
	}
}

// look finds the processes of the sites by their command lines.
func (p *player) look() {
	want := map[string]string{}
	for _, site := range sites() {
		for unit, roles := range unitRoles() {
			want[filepath.Join(p.dir, "sites", site, "node.yaml")+"\x00--roles\x00"+roles+"\x00"] = site + " " + unit
		}
	}
	for _, pid := range pids() {
		cmd, _ := os.ReadFile(procFile(pid, "cmdline"))
		for end, key := range want {
			if strings.HasSuffix(string(cmd), end) && describe(pid) != "" {
				p.pids[key] = pid
			}
		}
	}
}

// mend ends whatever the schedule has left: nothing, unless it was broken off.
func (p *player) mend() {
	p.heal("")
	for _, pid := range p.pids {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	p.look()
}

// descriptors counts what each process has open.
func (p *player) descriptors() map[string]int {
	out := map[string]int{}
	for key, pid := range p.pids {
		open, _ := os.ReadDir(procFile(pid, "fd"))
		out[key] = len(open)
	}
	return out
}

// note reads what the fleet says of sites and clusters since the last time, and keeps it:
// its own log holds the newest few thousand events.
func (p *player) note() {
	var log struct {
		Items []placement.Event `json:"items"`
	}
	since := int64(0)
	if n := len(p.told); n > 0 {
		since = p.told[n-1].ID
	}
	// While the store is away there is nothing to read; the next time there is all of it.
	if err := p.api(fmt.Sprintf("/api/v1/events?kind=health&limit=4096&since=%d", since), &log); err != nil {
		return
	}
	for _, e := range log.Items {
		if e.ID > since {
			p.told = append(p.told, e)
		}
	}
}
