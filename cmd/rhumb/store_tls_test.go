package main

import (
	"strings"
	"testing"

	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/store"
)

func TestStoreReady(t *testing.T) {
	member := func(name, mode string) placement.Node {
		return placement.Node{Name: name, Unit: "rhumb-director", Store: &placement.StoreLink{TLS: mode, Ready: mode == "auto", Missing: "it says " + mode, Member: true}}
	}
	dns := placement.Node{Name: "a", Unit: "rhumb-dns", Store: &placement.StoreLink{TLS: "auto", Ready: true}}
	old := placement.Node{Name: "c", Unit: "rhumb-dns"}
	for _, tt := range []struct {
		name  string
		toTLS bool
		nodes []placement.Node
		want  string // of what is missing; empty: ready
	}{
		{"all", true, []placement.Node{member("a", "auto"), dns, member("b", "auto")}, ""},
		{"nobody is heard", true, nil, "a has not reported"},
		{"a member is away", true, []placement.Node{member("a", "auto"), dns}, "b has not reported"},
		{"an old version", true, []placement.Node{member("a", "auto"), member("b", "auto"), old}, "c/rhumb-dns runs a version"},
		{"one that cannot", true, []placement.Node{member("a", "auto"), member("b", "off")}, "b/rhumb-director: it says off"},
		{"back", false, []placement.Node{member("a", "allow"), member("b", "allow"), old}, ""},
		{"back, but for one", false, []placement.Node{member("a", "allow"), member("b", "auto")}, "b says auto"},
		{"back, one is away", false, []placement.Node{member("a", "allow")}, "b has not reported"},
		{"many", true, []placement.Node{old, old, old, old, old}, "and 2 more"},
	} {
		ok, missing := storeReady(tt.toTLS, []string{"a", "b"}, tt.nodes)
		if ok != (tt.want == "") || !strings.Contains(missing, tt.want) {
			t.Errorf("%s: %v, %q, want %q", tt.name, ok, missing, tt.want)
		}
	}
}

func TestStoreLink(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mode   string
		link   store.Link
		member *store.MemberLink
		want   placement.StoreLink
	}{
		{"a client by TLS", config.StoreTLSAuto, store.Link{TLS: 1}, nil, placement.StoreLink{Encrypted: true, Ready: true}},
		{"a client in clear that could", config.StoreTLSAuto, store.Link{Clear: 1}, nil, placement.StoreLink{Ready: true}},
		{"off", config.StoreTLSOff, store.Link{Clear: 1}, nil, placement.StoreLink{Missing: "store.etcd.tls is off, or there is no identity"}},
		{"a member that does not reach the others", config.StoreTLSAuto, store.Link{TLS: 1}, &store.MemberLink{Members: 3, Clear: 3, Exposed: 3, Missing: "b"},
			placement.StoreLink{Member: true, Missing: "b"}},
		{"a member that waits", config.StoreTLSAuto, store.Link{TLS: 1}, &store.MemberLink{Members: 3, Clear: 1, Exposed: 1, Reaches: true, Missing: "c"},
			placement.StoreLink{Member: true, Ready: true, Waits: "c"}},
		{"all", config.StoreTLSRequire, store.Link{TLS: 1}, &store.MemberLink{Members: 3, Reaches: true}, placement.StoreLink{Member: true, Ready: true, Encrypted: true}},
		{"one machine in clear", config.StoreTLSOff, store.Link{}, &store.MemberLink{Members: 1, Clear: 1},
			placement.StoreLink{Member: true, Encrypted: true, Missing: "store.etcd.tls is off, or there is no identity"}},
	} {
		tt.want.TLS = tt.mode
		if got := *storeLink(tt.mode, tt.link, tt.member); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
