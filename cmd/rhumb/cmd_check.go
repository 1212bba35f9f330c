package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/authdns/dnssec"
	"rhumb/health"
	"rhumb/internal/api"
	"rhumb/internal/config"
)

func (a *app) checkCommand() *cobra.Command {
	var against, keys string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a fleet file or a node file; with --against live: what an apply would change",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if against != "" && against != "live" {
				return withCode(exitUsage, fmt.Errorf("--against %q is not live", against))
			}
			data, err := os.ReadFile(given[0])
			if err != nil {
				return withCode(exitNotFound, fmt.Errorf("check: %w", err))
			}
			if isNodeFile(data) {
				if against != "" || keys != "" {
					return withCode(exitUsage, errors.New("--against and --keys are for fleets; this is a node file"))
				}
				return a.checkNode(given[0])
			}
			return a.checkFleet(cmd, given[0], keys, against == "live")
		},
	}
	cmd.Flags().StringVar(&against, "against", "", "live: compare with what is in force")
	cmd.Flags().StringVar(&keys, "keys", "", "directory of key files: those of zones with other_keys go with these")
	return cmd
}

// isNodeFile decides by content: only a node file says who it is.
func isNodeFile(data []byte) bool {
	return slices.ContainsFunc(bytes.Split(data, []byte("\n")), func(line []byte) bool {
		return bytes.HasPrefix(line, []byte("node:"))
	})
}

func (a *app) checkFleet(cmd *cobra.Command, file, keys string, live bool) error {
	fleet, err := config.LoadFleet(file, readZone)
	if err != nil {
		return err
	}
	if keys != "" {
		if err := checkOtherKeys(fleet, &keyFlags{dir: keys, now: time.Now}); err != nil {
			return err
		}
	}
	if !live {
		return a.sound(file, contents(&fleet.Fleet))
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	var res api.ApplyResult
	raw, err := c.post(cmd.Context(), "/config/check", api.ApplyRequest{Fleet: fleet.Fleet, Blobs: fleet.Blobs}, &res)
	if err != nil {
		return explainRefusal(err, "apply", "", "rhumb apply "+quote(file))
	}
	res.DryRun = true
	return a.showApply(raw, &res)
}

// checkOtherKeys holds keys of other providers against ours, which no fleet file knows: as
// each node does, which then refuses them too.
func checkOtherKeys(fleet *config.Fleet, f *keyFlags) error {
	for i := range fleet.Zones {
		z := &fleet.Zones[i]
		if len(z.OtherKeys) == 0 {
			continue
		}
		keys, err := f.load(z.Name)
		if err != nil {
			return err
		}
		_, err = dnssec.NewRing(z.Name, keys, dnssec.HourOf(f.now()), z.OtherKeys...)
		var other *dnssec.OtherError
		if errors.As(err, &other) {
			err = fleet.Mistake([]string{"zones", "serve", strings.TrimSuffix(z.Name, ".")}, []string{"other_keys", other.Name, "dnskey"}, other.Reason)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sound says that a file is right; -o json says so as a document.
func (a *app) sound(file, what string) error {
	if a.global.output == "json" || a.global.output == "ndjson" {
		return json.NewEncoder(a.out).Encode(map[string]any{"file": file, "sound": true, "contents": what})
	}
	_, err := fmt.Fprintf(a.out, "%s is sound: %s\n", file, what)
	return err
}

// checkNode checks a node file, and that this host has what it names.
func (a *app) checkNode(file string) error {
	n, err := config.LoadNode(file)
	if err != nil {
		return err
	}
	if _, err := guardOf(n, nil); err != nil {
		return err
	}
	have, err := hostAddresses()
	if err != nil {
		return fmt.Errorf("check: addresses of this host: %w", err)
	}
	for _, l := range slices.Concat(n.Listen.Top, n.Listen.Low) {
		if !l.Addr().IsUnspecified() && !slices.Contains(have, l.Addr()) {
			a.say("warning: this host has no address %s; a listener on it needs it on an interface (anycast: on lo)", l.Addr())
		}
	}
	if n.Twin.On() {
		a.say("twin: inputs %s late; the feed stops when %d other name servers come to harm; routes get %d more of our AS and MED %d", n.Twin.Delay, n.Twin.Wave, n.Twin.Prepend, n.Twin.MED)
	}
	if n.Has(config.RoleHealth) {
		if err := health.PingAllowed(); err != nil {
			a.say("warning: checks of kind icmp see nothing for this group (%v); let it in with sysctl net.ipv4.ping_group_range, for rhumb-bgp the group rhumb", err)
		}
	}
	return a.sound(file, fmt.Sprintf("node %s of site %s, roles %s", n.Node.Name, n.Node.Site, strings.Join(n.Node.Roles, ", ")))
}

func hostAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}
