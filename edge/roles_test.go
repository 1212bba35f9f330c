//go:build e2e

package edge

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"rhumb/edge/fdstore"
	"rhumb/edge/forward"
	"rhumb/edge/frame"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv("EDGE_ROLE") {
	case "agent":
		err = agentRole()
	case "store":
		err = fdstore.Serve(3, fdstore.Patience)
	case "load":
		err = loadRole()
	case "circle":
		err = circleRole()
	case "fetch":
		err = fetchRole()
	case "story":
		err = storyRole()
	case "resume-site":
		err = resumeSiteRole()
	case "follow":
		err = followRole()
	case "path":
		err = pathRole()
	case "tap":
		err = tapRole()
	case "wire":
		err = wireRole()
	case "origin":
		err = originRole()
	case "stream":
		err = streamRole()
	case "talk":
		err = talkRole()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv("EDGE_ROLE"), err)
		os.Exit(1)
	}
}

// originAddr is the router's, on the side of site a.
const originAddr = "198.51.100.5:8081"

// originRole serves a directory. Told "hold", it keeps the last octet of each response
// back until it is told "pass": a copy is on its way for as long as a test says.
func originRole() error {
	var mu sync.Mutex
	passed := make(chan struct{})
	close(passed)
	gate := func() <-chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		return passed
	}
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			mu.Lock()
			if in.Text() == "hold" {
				passed = make(chan struct{})
			} else {
				close(passed)
			}
			mu.Unlock()
			fmt.Printf("%q\n", in.Text())
		}
	}()
	files := http.FileServer(http.Dir(strings.Trim(os.Getenv("EDGE_ARGS"), `"`)))
	return http.ListenAndServe(originAddr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(&heldWriter{ResponseWriter: w, gate: gate()}, r)
	}))
}

// heldWriter keeps the last octet of a body of known length until its gate opens.
type heldWriter struct {
	http.ResponseWriter
	gate <-chan struct{}
	sent int64
}

func (w *heldWriter) Write(b []byte) (int, error) {
	length, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	if err != nil || w.sent+int64(len(b)) < length {
		n, err := w.ResponseWriter.Write(b)
		w.sent += int64(n)
		return n, err
	}
	last := len(b) - 1
	n, err := w.ResponseWriter.Write(b[:last])
	if err != nil {
		return n, err
	}
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		return n, err
	}
	<-w.gate
	m, err := w.ResponseWriter.Write(b[last:])
	return n + m, err
}

// agentArgs start an agent. Every site has one other, which is its sessions' Backup, and
// perhaps a third one, which is nobody's.
type agentArgs struct {
	Site, Other, Dir, Root, Origin string
	Third                          string
	Mode                           string
	Deadline, PullAfter            time.Duration
	Backups                        bool
	Bare                           bool // without a store of sockets
	Freshness                      string
	Revival                        string        // empty: act, if there are Backups
	Standby                        bool          // runs when it is told a line
	Slow                           bool          // takes no offer before it is told "pass"
	Patience                       time.Duration // of its own offers; 0: the default
	Export                         string        // of a service over TLS; empty: in clear
	Socket                         string        // not empty: the service is another server's, which comes here
	Nodes                          string        // which of the three are nodes of one site, s
	Rest                           string        // further ones, Backups as the first
	Capacity                       int           // sessions that it serves; 0: the default
	Shed                           time.Duration // for how long more may be reserved; 0: the default
	Uploads                        bool          // into the directory up-SITE
	UploadMax                      int64
	Die                            string // the point of an upload at which it kills itself,
	Cut                            bool   // and its link before
	Nth                            int    // of the passages of that point; 0: the first
	Lives                          bool   // it is only cut off, and goes on
	Victim                         string // not empty: the network namespace of the other site, which dies instead
}

// name is that of an edge: its site's, or that of a node.
func (x agentArgs) name(letter string) string {
	if slices.Contains(strings.Fields(x.Nodes), letter) {
		return "s/" + letter
	}
	return letter
}

// of is the site of a node; empty: it is no node.
func (x agentArgs) of(letter string) string {
	if x.name(letter) != letter {
		return "s"
	}
	return ""
}

func agentRole() error {
	var x agentArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	cfg, err := x.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var a *Agent
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	var requests atomic.Int64
	cfg.Met = func(string, bool) { requests.Add(1) }
	f, err := x.forwarder(forward.Config{Registerer: reg,
		OnForeign: func(flow forward.Flow, owner string, since time.Time) { a.Foreign(frame.Key(flow), owner, since) },
		OnHeld:    func(flow forward.Flow, packet []byte) { a.Heard(frame.Key(flow), packet) },
		Shadowed:  func(flow forward.Flow) bool { return a.Shadowed(frame.Key(flow)) },
		KeptFor:   func(flow forward.Flow) string { return a.KeptFor(frame.Key(flow)) },
		First:     func(flow forward.Flow) []string { return a.First(frame.Key(flow)) }})
	if err != nil {
		return err
	}
	wrapped := strays{f, make(chan struct{})}
	if !x.Slow {
		close(wrapped.pass)
	}
	cfg.Strays = wrapped
	if a, err = New(cfg); err != nil {
		return err
	}
	a.patience, a.replica.book.patience = or(x.Patience, a.patience), or(x.Shed, a.replica.book.patience)
	var followed trails
	a.revival.seen = followed.follow
	if x.Die != "" {
		a.uploads.at = x.deadly()
		a.guests.at = a.uploads.at
	}
	if err := os.WriteFile(x.pidFile(x.Site), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	if x.Standby && !in.Scan() {
		return in.Err()
	}
	ended := make(chan error, 2)
	for name, run := range map[string]func(context.Context) error{"forwarder": f.Run, "agent": a.Run} {
		go func() {
			err := run(ctx)
			if ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, x.Site, name, "ended early:", err)
			}
			ended <- err
		}()
	}
	err = commands(in, a, reg, &requests, wrapped, &followed)
	cancel()
	return errors.Join(err, <-ended, <-ended)
}

func (x agentArgs) pidFile(site string) string { return filepath.Join(x.Dir, site+".pid") }

// deadly is what happens at the point of Die.
func (x agentArgs) deadly() func(point string) {
	var passed atomic.Int64
	return func(point string) {
		if point != x.Die || passed.Add(1) != int64(max(x.Nth, 1)) {
			return
		}
		if point == pointPiece || point == pointHead {
			time.Sleep(3 * ackDelay) // an acknowledgement that nobody holds leaves meanwhile
		}
		pid, in := os.Getpid(), []string{}
		if x.Victim != "" {
			b, err := os.ReadFile(x.pidFile(x.Other))
			if err == nil {
				pid, err = strconv.Atoi(string(b))
			}
			if err != nil {
				panic(err)
			}
			in = []string{"ip", "netns", "exec", x.Victim}
		}
		if x.Lives {
			if out, err := exec.Command("nft", partition).CombinedOutput(); err != nil {
				panic(string(out))
			}
			return
		}
		if x.Cut {
			in = append(in, "ip", "link", "set", "e0", "down")
			_ = exec.Command(in[0], in[1:]...).Run()
		}
		syscall.Kill(pid, syscall.SIGKILL)
		if x.Victim == "" {
			select {}
		}
	}
}

// ackDelay is for how long the kernel delays an acknowledgement by itself.
const ackDelay = 40 * time.Millisecond

// partition cuts a host off from everybody; its own processes and addresses stay.
const partition = `add table inet cut
add chain inet cut in { type filter hook prerouting priority -500 ; }
add rule inet cut in iifname "e0" drop
add chain inet cut out { type filter hook postrouting priority 500 ; }
add rule inet cut out oifname "e0" drop`

func (x agentArgs) config() (Config, error) {
	pair := filepath.Join(x.Dir, or(x.of(x.Site), x.Site))
	cert, err := tls.LoadX509KeyPair(pair+".crt", pair+".key")
	if err != nil {
		return Config{}, err
	}
	ca, err := os.ReadFile(filepath.Join(x.Dir, "ca.crt"))
	if err != nil {
		return Config{}, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	svc := Service{Name: "video", Kind: KindContent, Mode: x.Mode, Root: x.Root, Origin: x.Origin, Freshness: x.Freshness, Revival: x.Revival,
		VIPs: []netip.AddrPort{netip.MustParseAddrPort(vip4 + ":8080"), netip.MustParseAddrPort("[" + vip6 + "]:8080")}}
	if x.Uploads {
		svc.Uploads = Uploads{Dir: filepath.Join(x.Dir, "up-"+x.Site), Max: x.UploadMax}
		if err := os.MkdirAll(svc.Uploads.Dir, 0o755); err != nil {
			return Config{}, err
		}
	}
	if x.Backups {
		svc.Revival = or(x.Revival, ModeAct)
	}
	if x.Export != "" {
		svc.Export, svc.Cert, svc.Key = x.Export, filepath.Join(x.Dir, "video.test.crt"), filepath.Join(x.Dir, "video.test.key")
	}
	if x.Origin != "" {
		svc.Spool = filepath.Join(x.Dir, "spool-"+x.Site)
	}
	handoff := Handoff{Socket: x.Socket, Patience: x.Patience}
	if x.Socket != "" {
		svc = Service{Name: "stream", Kind: KindHandoff, Mode: x.Mode, VIPs: svc.VIPs}
	}
	peers := []Peer{{Name: x.name(x.Other), Of: x.of(x.Other), Control: netip.MustParseAddrPort(control(x.Other)), Weight: 1}}
	if x.Third != "" {
		peers = append(peers, Peer{Name: x.name(x.Third), Of: x.of(x.Third), Control: netip.MustParseAddrPort(control(x.Third))})
		if x.Nodes != "" {
			peers[1].Weight = 1
		}
	}
	for _, site := range strings.Fields(x.Rest) {
		peers = append(peers, Peer{Name: x.name(site), Of: x.of(site), Control: netip.MustParseAddrPort(control(site)), Weight: 1})
	}
	return Config{Reserve: Reserve{Capacity: x.Capacity}, Site: x.name(x.Site), Of: x.of(x.Site), Control: netip.MustParseAddrPort(control(x.Site)),
		TLS:      &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool},
		Peers:    peers,
		Services: []Service{svc}, Store: x.store(), Addresses: true, Handoff: handoff, Ledger: filepath.Join(x.Dir, x.Site+".taken"), Flows: established,
		Moves: Moves{PullAfter: x.PullAfter, FlapHold: time.Nanosecond, Deadline: x.Deadline, Backups: x.Backups},
		Log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))}, nil
}

// store is where the site's sockets are held, if they are.
func (x agentArgs) store() fdstore.Config {
	if !x.Backups || x.Bare {
		return fdstore.Config{}
	}
	return fdstore.Config{Socket: filepath.Join(x.Dir, x.Site+".store"), Command: func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "EDGE_ROLE=store")
		cmd.Stderr = os.Stderr
		return cmd
	}}
}

// established lists the connections to the addresses, as the program does.
func established(vips []netip.AddrPort) ([]frame.Key, error) {
	flows, err := forward.Established(vips)
	out := make([]frame.Key, len(flows))
	for i, f := range flows {
		out[i] = frame.Key(f)
	}
	return out, err
}

func commands(in *bufio.Scanner, a *Agent, reg *prometheus.Registry, requests *atomic.Int64, s strays, followed *trails) error {
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "state":
			r := reportOf(a)
			r.Strays = counted(reg, "rhumb_edge_strays_total")
			r.Revivals, r.Answers = counted(reg, "rhumb_edge_revivals_total"), counted(reg, "rhumb_edge_probe_answers_total")
			r.Questions = counted(reg, "rhumb_edge_questions_total")
			r.Held = counted(reg, "rhumb_edge_held_packets")[""]
			r.Totals, r.Handing, r.Takes = a.Totals(), a.Handing(), counted(reg, "rhumb_edge_handoff_takes_total")
			r.Doubts = counted(reg, "rhumb_edge_handoff_doubts_total")
			r.Flows, _ = established([]netip.AddrPort{netip.MustParseAddrPort(vip4 + ":8080"), netip.MustParseAddrPort("[" + vip6 + "]:8080")})
			r.Uploads = counted(reg, "rhumb_edge_uploads_total")
			r.Requests = requests.Load()
			r.Refusals = counted(reg, "rhumb_edge_backup_refusals_total")
			r.Declined = counted(reg, "rhumb_edge_pulls_declined_total")[""]
			r.Refused = counted(reg, "rhumb_edge_refused_epoch_total")[""]
			r.Prepared, r.Objects, r.Suspected = a.Preparations(), counted(reg, "rhumb_edge_prepared_objects_total"), counted(reg, "rhumb_edge_suspicions_total")
			out.Encode(r)
		case "suspect":
			var list []Suspect
			for _, site := range strings.Fields(arg) {
				list = append(list, Suspect{site, time.Now()})
			}
			a.SetSuspects(list)
			out.Encode("told")
		case "count", "census":
			out.Encode(count(a, verb == "census"))
		case "cpu":
			out.Encode(cpuSeconds())
		case "revived":
			out.Encode(followed.tell())
		case "profile": // of as many seconds as it takes until the next one
			if arg != "" {
				f, err := os.Create(arg)
				if err == nil {
					err = pprof.StartCPUProfile(f)
				}
				if err != nil {
					return err
				}
			} else {
				pprof.StopCPUProfile()
			}
			out.Encode("profiling")
		case "drain":
			if err := a.Drain(strings.Fields(arg)); err != nil {
				return err
			}
			out.Encode("draining")
		case "drained": // when no session is left here, how long that took
			out.Encode(drained(a))
		case "down":
			a.SetDown(strings.Fields(arg))
			out.Encode("told")
		case "doubt": // sites that are down, and kept in service
			a.SetDoubted(strings.Fields(arg))
			out.Encode("told")
		case "lost": // sites, as the program tells it
			for _, site := range strings.Fields(arg) {
				s.Lost(site)
			}
			a.SetDown(strings.Fields(arg))
			out.Encode("told")
		case "silent": // nodes of this site
			s.SetSilent(strings.Fields(arg))
			a.SetDown(strings.Fields(arg))
			out.Encode("told")
		case "pass":
			close(s.pass)
			out.Encode("passing")
		case "room": // for so many sessions
			n, err := strconv.Atoi(arg)
			if err != nil {
				return err
			}
			a.SetReserve(Reserve{Capacity: n})
			out.Encode("told")
		case "leaving": // sites that drain; none: no more
			if err := a.SetPeers(leaving(a.view.Load().peers, strings.Fields(arg))); err != nil {
				return err
			}
			out.Encode("told")
		case "undrain":
			a.Undrain()
			out.Encode("not draining")
		}
	}
	return in.Err()
}

// strays joins package forward to an agent, as the program does. Until pass is
// closed a hold waits, as if the offer that it belongs to came from far away.
type strays struct {
	*forward.Forwarder
	pass chan struct{}
}

func (s strays) Hold(k frame.Key) {
	<-s.pass
	s.Forwarder.Hold(forward.Flow(k))
}
func (s strays) Claim(k frame.Key)             { s.Forwarder.Claim(forward.Flow(k)) }
func (s strays) Release(k frame.Key)           { s.Forwarder.Release(forward.Flow(k)) }
func (s strays) Moved(k frame.Key, to string)  { s.Forwarder.Moved(forward.Flow(k), to) }
func (s strays) Stayed(k frame.Key, at string) { s.Forwarder.Stayed(forward.Flow(k), at) }

// forwarder makes the site's half of the tunnel.
func (x agentArgs) forwarder(c forward.Config) (*forward.Forwarder, error) {
	tunnel := func(site string) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddrPort(control(site)).Addr(), 7947)
	}
	c.Site, c.Local, c.Mode = x.name(x.Site), tunnel(x.Site), forward.Act
	for _, site := range strings.Fields(x.Other + " " + x.Third + " " + x.Rest) {
		c.Peers = append(c.Peers, forward.Peer{Site: x.name(site), Near: x.of(site) != "" && x.of(x.Site) != "", Addr: tunnel(site), Key: [32]byte{1, 2, 3}})
	}
	c.VIPs = []netip.AddrPort{netip.MustParseAddrPort(vip4 + ":8080"), netip.MustParseAddrPort("[" + vip6 + "]:8080")}
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return forward.New(c)
}

// loadArgs start N clients.
type loadArgs struct {
	N       int
	VIP     string
	Name    string        // object
	Size    int64         // of the object
	Piece   int64         // 0: one GET; else a range of this size, on one connection, each Pace
	Pace    time.Duration // with Piece 0: pause between reads
	Buffer  int           // receive buffer, 0: the default
	HashHex string
	Gated   bool // after its first byte a client reads on only when told "go"
	// Hold is how many bytes of the object a client takes before it is told "end"; 0:
	// all. So its session lasts for as long as a test needs it.
	Hold int64
	CA   string // file; not empty: TLS 1.3
	From string // source address; empty: the kernel's choice
	// Reads has each client tell of all its reads.
	Reads bool

	// Keen is for how long after the word "now" a client makes no pauses: what is new then, it
	// waits for.
	Keen time.Duration

	first, last chan struct{} // closed by "go" and "end"
	now         chan struct{} // closed by "now", which came at
	nowAt       *atomic.Int64 // in ns; 0: not yet
	phase       time.Duration // of one client of many that ask each Pace
	seen        *result       // of this client
}

// gates are what clients wait at, by the word that opens each.
type gates map[string]chan struct{}

// listen opens the gates that the test names, and all of them at its end.
func (g gates) listen() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if gate, ok := g[in.Text()]; ok {
			close(gate)
			delete(g, in.Text())
		}
	}
	for _, gate := range g {
		close(gate)
	}
}

// result is what one client saw.
type result struct {
	Err   string
	Gap   time.Duration // the longest between two reads, or of an answer to its request
	Ended time.Time
	// Of those that tell of their reads: who it was, and the segments that its kernel sent again.
	Client netip.AddrPort
	Reads  []read
	Again  int
}

// loadRole runs the clients: one line when each has its first byte, one with
// all results.
func loadRole() error {
	var x loadArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	results := make([]result, x.N)
	x.first, x.last = make(chan struct{}), make(chan struct{})
	x.now, x.nowAt = make(chan struct{}), &atomic.Int64{}
	go gates{"go": x.first, "end": x.last, "now": x.now}.listen()
	go func() {
		<-x.now
		x.nowAt.Store(time.Now().UnixNano())
	}()
	var begun, ended sync.WaitGroup
	for i := range results {
		begun.Add(1)
		first, x := sync.OnceFunc(begun.Done), x
		x.phase = x.Pace * time.Duration(i) / time.Duration(x.N)
		ended.Go(func() {
			defer first()
			x := x
			x.seen = &results[i]
			gap, err := x.client(first)
			results[i].Gap, results[i].Ended = gap, time.Now()
			if err != nil {
				results[i].Err = err.Error()
			}
		})
	}
	out := json.NewEncoder(os.Stdout)
	begun.Wait()
	out.Encode("begun")
	ended.Wait()
	return out.Encode(results)
}

func (x loadArgs) client(first func()) (gap time.Duration, err error) {
	d := net.Dialer{Control: func(_, _ string, c syscallConn) error {
		return c.Control(func(fd uintptr) {
			if x.Buffer > 0 {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, x.Buffer)
			}
		})
	}}
	if x.From != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(x.From)}
	}
	c, err := d.Dial("tcp", net.JoinHostPort(x.VIP, "8080"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(85 * time.Second))
	defer x.tell(c)
	if x.CA != "" {
		if c, err = clientTLS(c, x.CA); err != nil {
			return 0, err
		}
	}
	h, r := sha256.New(), bufio.NewReaderSize(c, 32<<10)
	piece := x.Piece
	if piece == 0 {
		piece = x.Size
	}
	for off := int64(0); off < x.Size; off += piece {
		asked := time.Now()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: video.test\r\nRange: bytes=%d-%d\r\n\r\n", x.Name, off, off+piece-1)
		g, err := x.response(r, h, min(piece, x.Size-off), first)
		switch {
		case x.Piece > 0 && x.Gated && off == 0: // the wait was our own
			time.Sleep(x.phase)
			g = 0
		case x.Piece > 0:
			g = time.Since(asked)
		}
		if gap = max(gap, g); err != nil {
			return gap, fmt.Errorf("at %d: %w", off, err)
		}
		if x.Piece > 0 {
			x.held(off + piece)
			time.Sleep(x.Pace - g)
		}
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != x.HashHex {
		return gap, fmt.Errorf("sha256 %s", got)
	}
	return gap, nil
}

// tell notes who a client was and what its kernel did, before its connection is closed.
func (x loadArgs) tell(c net.Conn) {
	x.seen.Client = plain(c.LocalAddr())
	if raw, err := c.(syscall.Conn).SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				x.seen.Again = int(info.Total_retrans)
			}
		})
	}
}

// response reads one response and returns the longest gap between reads.
func (x loadArgs) response(r *bufio.Reader, h io.Writer, want int64, first func()) (gap time.Duration, err error) {
	length := int64(-1)
	for line := 0; ; line++ {
		s, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line == 0 && !strings.HasPrefix(s, "HTTP/1.1 206 ") {
			return 0, fmt.Errorf("status line %q", s)
		}
		if s == "\r\n" {
			break
		}
		fmt.Sscanf(s, "Content-Length: %d", &length)
	}
	if length != want {
		return 0, fmt.Errorf("length %d, want %d", length, want)
	}
	buf, last, all := make([]byte, 32<<10), time.Now(), want
	for want > 0 {
		n, err := r.Read(buf[:min(want, int64(len(buf)))])
		h.Write(buf[:n])
		want -= int64(n)
		now := time.Now()
		if gap = max(gap, now.Sub(last)); x.Reads && n > 0 {
			x.seen.Reads = append(x.seen.Reads, read{now, now.Sub(last)})
		}
		if err != nil {
			return gap, fmt.Errorf("%d bytes short: %w", want, err)
		}
		if first(); x.Gated {
			<-x.first
		}
		if x.Reads && want == all-int64(n) {
			time.Sleep(x.phase) // clients did not all come at one moment
		}
		if x.Piece == 0 {
			x.held(all - want)
		}
		if last = time.Now(); x.Piece == 0 { // the waits were our own
			x.pause()
		}
	}
	return gap, nil
}

// pause is that between two reads, which the word "now" ends.
func (x loadArgs) pause() {
	if x.Keen == 0 {
		time.Sleep(x.Pace)
		return
	}
	timer := time.NewTimer(x.Pace)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-x.now:
		if at := x.nowAt.Load(); at != 0 && time.Since(time.Unix(0, at)) > x.Keen {
			time.Sleep(x.Pace)
		}
	}
}

// held waits at Hold until the test lets the clients go on.
func (x loadArgs) held(taken int64) {
	if x.Hold > 0 && taken >= x.Hold {
		<-x.last
	}
}
