package netlab

import (
	"errors"
	"fmt"
	"os"
)

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
