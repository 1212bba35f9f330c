package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"rhumb/internal/config"
	"rhumb/placement"
)

// notifySystemd tells the service manager something; a no-op outside of it.
func notifySystemd(state string) { _, _ = daemon.SdNotify(false, state) }

// alive feeds the watchdog (WatchdogSec) and says in a line what the unit does.
// The report's loop calls it after every role has answered: a role that hangs
// stops the feeding. The result of a check never does, since systemd's kill asks
// no guard, and a fault shared by all sites would take every route down.
func alive(n *placement.Node) string {
	return daemon.SdNotifyWatchdog + "\nSTATUS=" + statusLine(n)
}

// statusLine is what `systemctl status` shows.
func statusLine(n *placement.Node) string {
	if n.Snapshot == "" {
		return "waits for the first snapshot"
	}
	parts := []string{"snapshot " + n.Snapshot}
	if n.DNS != nil {
		parts = append(parts, fmt.Sprintf("%d zones, %.0f queries/s", len(n.DNS.Zones), n.DNS.QPS))
	}
	if n.BGP != nil {
		up := 0
		for _, p := range n.BGP.Peers {
			if p.State == "established" {
				up++
			}
		}
		parts = append(parts, fmt.Sprintf("%d/%d peers", up, len(n.BGP.Peers)))
	}
	if n.Edge != nil {
		parts = append(parts, fmt.Sprintf("%d sessions", n.Edge.Sessions+n.Edge.Foreign))
	}
	if n.Leader {
		parts = append(parts, "directs the fleet")
	}
	if len(n.Alarms) > 0 {
		parts = append(parts, fmt.Sprintf("%d alarms", len(n.Alarms)))
	}
	return strings.Join(parts, ", ")
}

// hangups catches SIGHUP from now on; without it the signal would end the process.
// It is asked for before the unit says that it is ready, since a manager may send
// one at once.
func hangups() chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

// reload answers each SIGHUP until ctx ends: it reads the node file again and says
// whether it is right and whether it differs. What a unit is made of (addresses,
// roles, peers, store) changes by a restart alone.
func (u *unit) reload(ctx context.Context, file string, hup chan os.Signal) error {
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		}
		u.notify(daemon.SdNotifyReloading)
		changed, err := u.reread(file)
		switch {
		case err != nil:
			u.log.Error("the node file is wrong; the unit goes on as it was started", "err", err)
		case changed:
			u.log.Warn("the node file has changed; restart the unit to use it", "file", file)
		default:
			u.log.Info("the node file is as it was", "file", file)
		}
		u.notify(daemon.SdNotifyReady)
	}
}

// reread tells whether the node file says something else than at the start.
func (u *unit) reread(file string) (changed bool, err error) {
	cfg, err := config.LoadNode(file)
	if err != nil {
		return false, err
	}
	return !reflect.DeepEqual(cfg, u.cfg), nil
}
