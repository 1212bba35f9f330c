package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a Node that was built. Its network and mount namespaces are those of
// one thread, the keeper; they end when it does and nothing else holds them.
// All methods may be called from any goroutine.
type Host struct {
	Node

	keeper *keeper
	nl     *netlink.Handle // a socket opened inside the namespace
	inode  uint64          // of the network namespace: finds the host's processes
	// declared are the names of the interfaces that the topology gives the host;
	// others belong to programs in it. Fixed before anything is built.
	declared map[string]bool
}

// keeper is a locked thread inside namespaces of its own, which runs what it is
// handed, one at a time. Work that may block does not belong here.
type keeper struct {
	work  chan func()
	done  chan struct{} // closed when the thread has left
	net   *os.File      // the network namespace
	outer *os.File      // the one this process was in before
}

// newKeeper makes a network and a mount namespace and runs setup inside them.
func newKeeper(setup func() error) (*keeper, error) {
	k := &keeper{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go onFreshThread(func() {
		defer close(k.done)
		err := k.enter(setup)
		ready <- err
		if err != nil {
			return
		}
		for f := range k.work {
			f()
		}
	})
	if err := <-ready; err != nil {
		<-k.done
		k.closeFiles()
		return nil, err
	}
	return k, nil
}

// onFreshThread runs f on a thread that is not the process's first and that ends
// with f: the first one answers for the whole process in /proc and cannot end.
func onFreshThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // still locked, so the runtime ends the thread
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onFreshThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

// enter moves this thread into new namespaces. Mounts are made private first of
// all: from a shared "/" a bind mount would show up on the machine.
func (k *keeper) enter(setup func() error) (err error) {
	if k.outer, err = openNetNS(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("netlab: new namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("netlab: make mounts private: %w", err)
	}
	if k.net, err = openNetNS(); err != nil {
		return err
	}
	return setup()
}

// openNetNS opens the calling thread's network namespace. /proc/self would name
// the first thread's, which is another.
func openNetNS() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("netlab: open network namespace: %w", err)
	}
	return f, nil
}

// do runs f on the keeper's thread and waits for it.
func (k *keeper) do(f func() error) error {
	err := make(chan error, 1)
	k.work <- func() { err <- f() }
	return <-err
}

// close ends the thread. The namespace lives on while a process or socket is in it.
func (k *keeper) close() {
	close(k.work)
	<-k.done
	k.closeFiles()
}

// closeFiles lets go of the namespaces, as far as they were opened.
func (k *keeper) closeFiles() {
	for _, f := range []*os.File{k.net, k.outer} {
		if f != nil {
			f.Close()
		}
	}
}

// newHost makes the namespaces of n, with lo up and resolv.conf in place.
func newHost(n Node) (*Host, error) {
	h := &Host{Node: n}
	var err error
	h.keeper, err = newKeeper(func() error {
		if err := sysctlAll(nodeSysctls(n.Role)); err != nil {
			return err
		}
		if len(n.Resolvers) > 0 {
			if err := mountResolvConf(resolvConf(n.Resolvers)); err != nil {
				return err
			}
		}
		h.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlab: netlink socket: %w", err)
		}
		return h.loopbackUp()
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: build node %s: %w", n.Name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h.keeper.net.Fd()), &st); err != nil {
		h.close()
		return nil, fmt.Errorf("netlab: build node %s: %w", n.Name, err)
	}
	h.inode = st.Ino
	return h, nil
}

// loopbackUp brings up lo with the declared addresses. It runs on the keeper, but
// only needs the handle, whose socket is bound to the namespace.
func (h *Host) loopbackUp() error {
	lo, err := h.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("netlab: find lo: %w", err)
	}
	if err := h.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("netlab: lo up: %w", err)
	}
	for _, a := range h.Loopback {
		if err := h.addAddress(lo, netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	return nil
}

// close ends the host; its processes must be gone before.
func (h *Host) close() {
	h.nl.Close()
	h.keeper.close()
}

// sysctl is one kernel setting, by path below /proc/sys. With several values the
// first that the kernel takes wins: what is allowed depends on the user namespace.
type sysctl struct {
	path     string
	values   []string
	optional bool // a kernel without the feature lacks the file
}

// nodeSysctls are the settings of a new network namespace. A fresh one forbids
// ping to everybody (ping_group_range 1 0); below a user namespace only the one
// mapped group can be named. Strict reverse paths would drop anycast answers.
// Duplicate address detection would keep IPv6 addresses from use for a second.
func nodeSysctls(role Role) []sysctl {
	all := []sysctl{
		{path: "net/ipv4/ping_group_range", values: []string{"0 2147483647", "0 0"}},
		{path: "net/ipv4/ip_unprivileged_port_start", values: []string{"0"}},
		{path: "net/ipv4/fib_multipath_hash_policy", values: []string{"1"}, optional: true},
		{path: "net/ipv6/fib_multipath_hash_policy", values: []string{"1"}, optional: true},
	}
	forward := "0"
	if role == Router {
		forward = "1"
	}
	all = append(all,
		sysctl{path: "net/ipv4/ip_forward", values: []string{forward}},
		sysctl{path: "net/ipv6/conf/all/forwarding", values: []string{forward}})
	for _, scope := range []string{"all", "default"} {
		for _, path := range []string{"ipv4/conf/%s/rp_filter", "ipv6/conf/%s/accept_dad", "ipv6/conf/%s/accept_ra"} {
			all = append(all, sysctl{path: "net/" + fmt.Sprintf(path, scope), values: []string{"0"}})
		}
	}
	return all
}

// sysctlAll writes settings of the calling thread's namespace, in order: turning
// forwarding on or off resets others.
func sysctlAll(settings []sysctl) error {
	for _, s := range settings {
		if err := s.write(); err != nil && !(s.optional && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// write tries the values in turn and reports the last refusal.
func (s sysctl) write() (err error) {
	for _, v := range s.values {
		if err = os.WriteFile("/proc/sys/"+s.path, []byte(v), 0); err == nil {
			return nil
		}
	}
	return fmt.Errorf("netlab: set %s: %w", s.path, err)
}

// resolvConf is the text of a node's resolv.conf. The timeout is short for a
// resolver: in a lab nobody wants to wait the usual 5 s for a dead one.
func resolvConf(servers []netip.Addr) string {
	var b strings.Builder
	for _, a := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	b.WriteString("options timeout:2 attempts:2\n")
	return b.String()
}

// stage is where a tmpfs is mounted for a moment while a node's own files are
// made; any directory serves, since only the keeper's mount namespace sees it.
const stage = "/tmp"

// mountResolvConf puts text over /etc/resolv.conf in this thread's mount
// namespace. Bind mounts keep the tmpfs alive after the stage is taken down.
func mountResolvConf(text string) error {
	if err := unix.Mount("netlab", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=0755"); err != nil {
		return fmt.Errorf("netlab: mount tmpfs: %w", err)
	}
	err := coverResolvConf(text)
	if e := unix.Unmount(stage, unix.MNT_DETACH); err == nil && e != nil {
		err = fmt.Errorf("netlab: unmount stage: %w", e)
	}
	return err
}

// coverResolvConf binds the file over the machine's own, or over all of /etc when
// there is nothing to bind it over.
func coverResolvConf(text string) error {
	const target = "/etc/resolv.conf"
	file := stage + "/resolv.conf"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("netlab: write resolv.conf: %w", err)
	}
	if _, err := os.Stat(target); err != nil { // missing, or a link to nowhere
		return coverEtc("/etc", stage)
	}
	if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("netlab: bind %s: %w", target, err)
	}
	return nil
}

// coverEtc replaces the directory etc by one on the tmpfs at dir whose entries
// are links into the original, so that a resolv.conf can stand in it although
// the machine has none.
func coverEtc(etc, dir string) error {
	const under = ".machine"
	entries, err := os.ReadDir(etc)
	if err != nil {
		return fmt.Errorf("netlab: list %s: %w", etc, err)
	}
	if err := os.Mkdir(filepath.Join(dir, under), 0o755); err != nil {
		return fmt.Errorf("netlab: cover %s: %w", etc, err)
	}
	if err := unix.Mount(etc, filepath.Join(dir, under), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("netlab: bind %s: %w", etc, err)
	}
	for _, e := range entries {
		if e.Name() == "resolv.conf" {
			continue
		}
		if err := os.Symlink(under+"/"+e.Name(), filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("netlab: cover %s: %w", etc, err)
		}
	}
	if err := unix.Mount(dir, etc, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("netlab: cover %s: %w", etc, err)
	}
	return nil
}

// Do runs f on a thread in the host's network namespace. Sockets which f opens
// stay in that namespace for their whole life; goroutines which it starts do not
// run in it. F may block.
func (h *Host) Do(f func() error) error {
	result := make(chan error, 1)
	go onFreshThread(func() {
		if err := unix.Setns(int(h.keeper.net.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("netlab: enter node %s: %w", h.Name, err)
			return
		}
		err := f()
		if unix.Setns(int(h.keeper.outer.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // as it was: the thread may serve others again
		}
		result <- err
	})
	return <-result
}

// Listen opens a stream listener in the host; address must be numeric.
func (h *Host) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = h.Do(func() (err error) {
		var c net.ListenConfig
		l, err = c.Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket in the host; address must be numeric.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (p net.PacketConn, err error) {
	err = h.Do(func() (err error) {
		var c net.ListenConfig
		p, err = c.ListenPacket(ctx, network, address)
		return err
	})
	return p, err
}

// Dial connects from the host; address must be numeric, since names would be
// looked up by the machine's resolver and not by the host's.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.Do(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Start starts cmd inside the host's network and mount namespaces; wait for it
// as for any other. A Pdeathsig must not be set: the starting thread is the
// host's own, and the PID namespace ends stray processes.
func (h *Host) Start(cmd *exec.Cmd) error {
	if err := h.keeper.do(cmd.Start); err != nil {
		return fmt.Errorf("netlab: start in %s: %w", h.Name, err)
	}
	return nil
}

// Run starts cmd inside the host and waits for it.
func (h *Host) Run(cmd *exec.Cmd) error {
	if err := h.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Processes lists the processes inside the host's network namespace, our own
// excluded, in ascending order of PID.
func (h *Host) Processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("netlab: list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t // a process which ended meanwhile is not of interest
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && st.Ino == h.inode {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killWithin bounds the wait for killed processes to be gone.
const killWithin = 5 * time.Second

// Signal sends sig to every process of the host. After SIGKILL it waits until
// they have ended and looks again, for one may have started another meanwhile.
func (h *Host) Signal(sig unix.Signal) error {
	deadline := time.Now().Add(killWithin)
	for {
		pids, err := h.Processes()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := signalProcess(pid, sig, deadline); err != nil {
				return fmt.Errorf("netlab: signal process %d of %s: %w", pid, h.Name, err)
			}
		}
		if sig != unix.SIGKILL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("netlab: %s starts processes faster than they can be killed", h.Name)
		}
	}
}

// signalProcess signals one process by a descriptor of it, which cannot come to
// mean another process, and after SIGKILL waits until it has ended.
func signalProcess(pid int, sig unix.Signal, deadline time.Time) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	if sig != unix.SIGKILL {
		return nil
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		left := time.Until(deadline)
		n, err := unix.Poll(poll, int(max(left, 0).Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return err
		case left <= 0:
			return errors.New("it does not end")
		}
	}
}
