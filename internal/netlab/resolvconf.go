package netlab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

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
