package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/vip"
	"rhumb/internal/config"
	"rhumb/placement"
)

// vipNode is a node of a site as its node file says.
func vipNode(name string) *config.Node {
	members := make(map[string][]netip.AddrPort)
	for i, m := range []string{"ams1-c", "ams1-a", "ams1-b"} {
		members[m] = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(11 + i)}), 7946)}
	}
	return &config.Node{Node: config.Self{Name: name, Site: "ams1"}, VIP: &config.VIP{Device: "eth0", Members: members,
		Leases: map[string][]netip.Addr{"web": {netip.MustParseAddr("2001:db8:1::10"), netip.MustParseAddr("198.51.100.10")}, "mail": {netip.MustParseAddr("198.51.100.25")}}}}
}

// TestLeaseConfig: every node of a site comes to the same members, leases and key, and
// what it comes to is taken.
func TestLeaseConfig(t *testing.T) {
	dir := t.TempDir()
	group, site := filepath.Join(dir, "group"), filepath.Join(dir, "ams1")
	if err := config.InitGroup(group, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := config.JoinGroup(group, "ams1", site, time.Now()); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(site, "site.crt"))
	if err != nil {
		t.Fatal(err)
	}
	var all []vip.Config
	for _, name := range []string{"ams1-a", "ams1-b"} {
		id, err := config.LoadIdentity(site)
		if err != nil {
			t.Fatal(err)
		}
		u := &unit{cfg: vipNode(name), identity: id, log: slog.New(slog.DiscardHandler), metrics: prometheus.NewRegistry()}
		c, err := u.leases(&placement.Site{Name: "ams1", Identity: string(pem)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vip.New(c); err != nil || c.Self != name || c.OnChange == nil {
			t.Errorf("%s: %+v: %v", name, c, err)
		}
		all = append(all, c)
	}
	a, b := all[0], all[1]
	if !reflect.DeepEqual(a.Members, b.Members) || !reflect.DeepEqual(a.Leases, b.Leases) || !reflect.DeepEqual(a.Key, b.Key) {
		t.Errorf("two nodes of a site differ:\n%+v\n%+v", a, b)
	}
	if a.Members[0].Name != "ams1-a" || a.Leases[0].Name != "mail" || !a.Leases[1].Addrs[0].Is4() {
		t.Errorf("members and leases are not in order: %+v %+v", a.Members, a.Leases)
	}
	// Another site's key is another one.
	other := filepath.Join(dir, "fra1")
	if err := config.JoinGroup(group, "fra1", other, time.Now()); err != nil {
		t.Fatal(err)
	}
	id, err := config.LoadIdentity(other)
	if err != nil {
		t.Fatal(err)
	}
	u := &unit{cfg: vipNode("ams1-a"), identity: id, log: slog.New(slog.DiscardHandler), metrics: prometheus.NewRegistry()}
	if c, err := u.leases(&placement.Site{Name: "ams1", Identity: string(pem)}); err == nil && reflect.DeepEqual(c.Key, a.Key) {
		t.Error("a node of another site comes to the same key")
	}
}

// TestLeaseEvent: an event names the node and what it answers for.
func TestLeaseEvent(t *testing.T) {
	for ours, want := range map[bool]string{true: "ams1-a answers for [198.51.100.25] (lease mail)", false: "ams1-a answers no longer for"} {
		if e := leaseEvent(vipNode("ams1-a"), "mail", ours); !strings.Contains(e.Text, want) || e.Kind != "session" {
			t.Errorf("%+v, want %q", e, want)
		}
	}
}
