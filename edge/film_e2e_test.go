//go:build e2e

package edge

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/internal/browser"
	"rhumb/internal/timeline"
)

const (
	// filmDetection is how long after a site's death the other is told of it: that is
	// what beats on several ways take.
	filmDetection = 300 * time.Millisecond
	// filmStall is how long a film may stand still once the other site knows: together
	// with the detection that makes 0.7 s for the loss of a site. A drain has none.
	filmStall = 400 * time.Millisecond
	// filmPart is how much of the film is played in each scene.
	filmPart = 8
)

// TestFilmGoesOn: Chromium plays a film from the anycast address, a second at a time
// over one connection, while its site is drained, while the process that serves it
// is killed and another takes its place, and while the site is lost. The video has no
// error, stands still no longer than it may, and no connection is made anew.
// It runs in the long form, and leaves a picture of the page and a timeline.
func TestFilmGoesOn(t *testing.T) {
	if !soak() {
		t.Log("a film is played with RHUMB_SOAK=1; TestPull and TestSiteLoss have clients of our own")
		return
	}
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w, film := newWorld(t), browser.NewFilm(6*filmPart)
			w.premiere(film)
			a, b := w.sites(func(x *agentArgs) { x.Backups, x.Freshness = true, FreshL1 })
			c := w.watch("http://"+net.JoinHostPort(f.vip, "8080"), film)
			w.filmed(a)
			c.calmly()
			c.drained("a", "b", a)

			next := w.agent("b", "a", func(x *agentArgs) { x.Backups, x.Freshness, x.Standby = true, FreshL1, true })
			w.filmed(b)
			c.crash("b", b, next)
			w.filmed(next)
			c.lost("b", "a", next, a)
			c.end(film)
		})
	}
}

// TestSealedFilmGoesOn is the same over TLS 1.3, whose sessions move and are not
// revived: its site is drained, and then the other.
func TestSealedFilmGoesOn(t *testing.T) {
	if !soak() {
		t.Log("a film is played with RHUMB_SOAK=1; TestTLSDrain and TestTLSCurlMoves have other clients")
		return
	}
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w, film := newWorld(t), browser.NewFilm(4*filmPart)
			w.premiere(film)
			a, b := w.tlsSites(ExportGroup)
			trust, err := browser.Trust(filepath.Join(w.dir, "video.test.crt"))
			if err != nil {
				t.Fatal(err)
			}
			c := w.watch("https://"+net.JoinHostPort(f.vip, "8080"), film, trust)
			c.calmly()
			c.drained("a", "b", a)
			c.drained("b", "a", b)
			c.end(film)
		})
	}
}

// TestSealedFilmOutlivesCrashes: over TLS 1.3 the process that serves the film is killed and
// another takes its place, and then the site is lost. A revived session has the rest of its
// response and ends, so the browser makes a connection anew for each of the two, and no
// more; the film has no error, and stands still no longer than it may. With L0 a response
// that had just begun would be reset, and the film end by that.
func TestSealedFilmOutlivesCrashes(t *testing.T) {
	if !soak() {
		t.Log("a film is played with RHUMB_SOAK=1; TestTLSSiteLoss and TestTLSAgentCrash have other clients")
		return
	}
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w, film := newWorld(t), browser.NewFilm(4*filmPart)
			w.premiere(film)
			pairFor(t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
			sealed := func(x *agentArgs) { x.Export, x.Backups, x.Freshness = ExportGroup, true, FreshL1 }
			a, b := w.sites(sealed)
			trust, err := browser.Trust(filepath.Join(w.dir, "video.test.crt"))
			if err != nil {
				t.Fatal(err)
			}
			c := w.watch("https://"+net.JoinHostPort(f.vip, "8080"), film, trust)
			c.calmly()

			next := w.agent("a", "b", func(x *agentArgs) {
				sealed(x)
				x.Standby = true
			})
			w.filmed(a)
			c.crash("a", a, next)
			w.filmed(next)
			c.lost("a", "b", next, b)
			c.ends(film, 3)
		})
	}
}

// TestFilmEndsWithoutRevival: the same judge sees the loss of a site where no service
// asks for revival. A browser may hide the reset and connect anew, and is seen to.
func TestFilmEndsWithoutRevival(t *testing.T) {
	if !soak() {
		t.Log("a film is played with RHUMB_SOAK=1")
		return
	}
	w, film := newWorld(t), browser.NewFilm(4*filmPart)
	w.premiere(film)
	a, _ := w.sites(nil)
	c := w.watch("http://"+net.JoinHostPort(vip4, "8080"), film)
	c.calmly()
	c.mark("loss of a, nobody revives")
	w.lose("a", a)
	c.routed("b")
	w.await("error of the film, nor a new connection: the loss of a site goes unseen", func() bool {
		c.played(false)
		return len(c.last.Log.Of("error")) > 0 || w.counter("c", "TcpActiveOpens") > c.opens
	})
}

// premiere puts a film and its page where both sites serve them, and gives the client
// little room for what it has not read.
func (w *world) premiere(f browser.Film) {
	w.t.Helper()
	w.deadline = 2 * time.Second
	w.small("c")
	w.film(f)
}

// calmly plays a while with nothing that disturbs: what the machine adds by itself.
func (c *cinema) calmly() {
	c.w.t.Helper()
	c.scene("calm", 0, func() {})
	c.calm = max(c.last.Stall(), c.last.Gap.Lasted())
	c.opens = c.w.counter("c", "TcpActiveOpens")
}

// crash kills the process that serves the film, and another one goes on there.
func (c *cinema) crash(site string, p, next *process) {
	c.w.t.Helper()
	c.scene("crash of the process at "+site, filmStall, func() {
		p.kill()
		next.tell("begin")
	})
	c.revived("the next process at "+site, next)
}

// lost cuts off the site that serves the film; the route turns, and the other one hears of it.
func (c *cinema) lost(site, to string, p, heir *process) {
	c.w.t.Helper()
	c.scene("loss of "+site, filmStall, func() {
		c.w.lose(site, p)
		c.routed(to)
		time.Sleep(filmDetection)
		var word string
		heir.ask("down "+site, &word)
		c.mark("%s knows of it", to)
	})
	c.revived(to, heir)
}

// revived wants that a process goes on with something, by its record or its socket.
func (c *cinema) revived(who string, p *process) {
	c.w.t.Helper()
	var r report
	if p.ask("state", &r); r.wentOn() == 0 {
		c.w.t.Errorf("%s revived %v, want the session of the film", who, r.Revivals)
	}
}

// drained turns the route and has the site give all its sessions away. Afterwards it
// may take some again.
func (c *cinema) drained(site, to string, p *process) {
	c.w.t.Helper()
	var word string
	var r report
	c.scene("drain of "+site, 0, func() {
		c.w.route(to)
		c.routed(to)
		p.ask("drain "+to, &word)
	})
	if p.ask("state", &r); r.Results[resultOK] == 0 || r.Results[resultLost] > 0 || r.Sessions > 0 {
		c.w.t.Errorf("%s moved %v, stays %v, has %d sessions: want all at %s", site, r.Results, r.Errors, r.Sessions, to)
	}
	p.ask("undrain", &word)
}

// small gives a host little room for what nobody has read: little beside a second of
// the film.
func (w *world) small(n string) {
	w.t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", w.prefix+n, "sysctl", "-qw", "net.ipv4.tcp_rmem=4096 65536 131072").CombinedOutput(); err != nil {
		w.t.Fatalf("sysctl: %v: %s", err, out)
	}
}

// film puts a film and its page where both sites serve them.
func (w *world) film(f browser.Film) {
	w.t.Helper()
	page, err := browser.Page("film.html")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, site := range []string{"a", "b"} {
		w.write("root-"+site+"/film.html", page)
	}
	first := filepath.Join(w.dir, "root-a", "film.mp4")
	out, err := os.Create(first)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = f.WriteTo(out)
	if err = errors.Join(err, out.Close(), os.Link(first, filepath.Join(w.dir, "root-b", "film.mp4"))); err != nil {
		w.t.Fatal(err)
	}
}

// filmed waits until a site has the session of the film, and a Backup for it.
func (w *world) filmed(p *process) {
	w.t.Helper()
	var r report
	w.await("Backup for the session of the film", func() bool {
		p.ask("state", &r)
		return r.Sessions > 0 && r.Backed == r.Sessions && r.Quiet == r.Sessions
	})
}

// cinema is a browser in front of a film, and what is known of both.
type cinema struct {
	w     *world
	b     *browser.Browser
	began time.Time
	marks []timeline.Mark
	route timeline.Lane
	calm  time.Duration // the longest rebuffer of the first scene: the machine's own
	opens int           // connections made by the client
	last  browser.Played
}

// watch starts the browser at the client, and returns when the film plays.
func (w *world) watch(server string, f browser.Film, args ...string) *cinema {
	w.t.Helper()
	c := &cinema{w: w, began: time.Now(), route: timeline.Lane{Name: "route"}}
	c.route.Set(c.began, "a")
	var err error
	c.b, err = browser.Start(browser.Options{Args: args, Start: func(cmd *exec.Cmd) error {
		cmd.Args = append([]string{"ip", "netns", "exec", w.prefix + "c"}, cmd.Args...)
		var err error
		if cmd.Path, err = exec.LookPath("ip"); err != nil {
			return err
		}
		return cmd.Start()
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		c.leave()
		c.b.Close()
	})
	if err := c.b.Open(server + "/film.html" + f.Layout()); err != nil {
		w.t.Fatal(err)
	}
	c.until("plays", "film.began > 0")
	return c
}

func (c *cinema) mark(format string, args ...any) {
	c.marks = append(c.marks, timeline.Mark{At: time.Now(), Text: fmt.Sprintf(format, args...)})
}

// routed notes that the routes were turned.
func (c *cinema) routed(to string) {
	c.route.Set(time.Now(), to)
	c.mark("the route is at %s", to)
}

// until waits for the page; an error of the film ends it at once.
func (c *cinema) until(what, js string) {
	c.w.t.Helper()
	err := c.b.Until(60*time.Second, "("+js+") || film.log.some((e) => e.what === 'error')")
	if c.played(false); err != nil || len(c.last.Log.Of("error")) > 0 {
		c.w.t.Fatalf("want that the film %s; seen: %s (%v); the page's log:\n%s", what, c.last, err, c.last.Log)
	}
}

func (c *cinema) played(forget bool) {
	c.w.t.Helper()
	p, err := c.b.Played(forget)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.last = p
}

// scene does something while the film plays on for filmPart seconds of its own time. The
// film may stand still for no longer than a limit, beside what the deed itself takes
// and what the machine adds without any: on a busy one pictures are late in calm.
func (c *cinema) scene(name string, limit time.Duration, act func()) {
	c.w.t.Helper()
	c.played(true)
	from := c.last.Time
	c.mark("%s", name)
	began := time.Now()
	act()
	took := time.Since(began)
	c.until(fmt.Sprintf("plays on from %.1f to %.1f s in the scene %q", from, from+filmPart, name), fmt.Sprintf("document.querySelector('video').currentTime > %f", from+filmPart))
	c.mark("%s: %s", name, c.last)
	c.w.t.Logf("%s: %s", name, c.last)
	if limit > 0 {
		limit += took
	}
	if got := c.last.Stall(); c.opens > 0 && got > limit+c.calm { // all scenes behind the calm one
		c.w.t.Errorf("%s: the film stood still for %s, want at most %s, and %s as in calm; the page's log:\n%s", name, got, limit, c.calm, c.last.Log)
	}
}

// end wants every octet right, and all of them by one connection.
func (c *cinema) end(f browser.Film) { c.ends(f, 1) }

// ends wants every octet right, by so many connections.
func (c *cinema) ends(f browser.Film, connections int) {
	t := c.w.t
	t.Helper()
	c.until("comes to its end", "document.querySelector('video').ended")
	head, second := int64(len(f.Head())), int64(len(f.Second(0)))
	size := head + second*int64(f.Seconds)
	sum, err := f.Sum(size)
	if err != nil || c.last.Octets != size || c.last.Sum != sum {
		t.Errorf("the film has %d octets with sum %s, want %d with %s (%v)", c.last.Octets, c.last.Sum, size, sum, err)
	}
	var film []browser.Exchange
	for _, x := range c.b.Exchanges() {
		if x.Err != "" || x.Status >= 300 {
			t.Errorf("failed: %s", x)
		}
		if strings.HasSuffix(x.URL, "/film.mp4") {
			film = append(film, x)
		}
	}
	got := browser.Connections(film)
	if len(film) != f.Seconds+1 || len(got) != connections {
		t.Errorf("%d requests for the film over the connections %v, want %d over %d", len(film), got, f.Seconds+1, connections)
	}
	if n := c.w.counter("c", "TcpActiveOpens"); n != c.opens+connections-1 {
		t.Errorf("the client has made %d connections, %d of them since the first scene; want %d", n, n-c.opens, connections-1)
	}
	c.w.noResets()
	t.Logf("%d requests over %d connections; the whole film: %s", len(film), len(got), c.last)
}

// leave keeps a timeline and a picture of the page beside the binary.
func (c *cinema) leave() {
	t := c.w.t
	dir := filepath.Join("..", "bin", "e2e")
	name := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-"))
	video := timeline.Lane{Name: "video"}
	for _, e := range c.last.Log {
		if e.What != "stalled" {
			video.Set(e.At.Time, e.What)
		}
		if e.What == "error" {
			c.marks = append(c.marks, timeline.Mark{At: e.At.Time, Text: "error: " + e.Detail})
		}
	}
	slices.SortStableFunc(c.marks, func(a, b timeline.Mark) int { return a.At.Compare(b.At) })
	chart := &timeline.Chart{Title: t.Name(), Notes: []string{"Chromium plays a film from the anycast address"}, Began: c.began, Ended: time.Now(),
		Events: c.marks, Lanes: []timeline.Lane{c.route, video}, Bad: []string{"waiting", "error"}}
	text := chart.Title + "\n" + chart.Log() + chart.Rows()
	t.Log("\n" + text)
	png, shotErr := c.b.Screenshot()
	if err := errors.Join(shotErr, os.MkdirAll(dir, 0o755), os.WriteFile(name+".txt", []byte(text), 0o644),
		os.WriteFile(name+".svg", chart.SVG(), 0o644), os.WriteFile(name+".png", png, 0o644)); err != nil {
		t.Error(err)
	}
}
