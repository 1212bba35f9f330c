package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/authdns"
	"rhumb/authdns/dnssec"
	"rhumb/placement"
)

// TestKeyCommands: the first keys of a zone, their DS, and both rolls, as an operator
// says them; the parent is asked in earnest.
func TestKeyCommands(t *testing.T) {
	dir := t.TempDir()
	say := func(code int, want string, args ...string) string {
		t.Helper()
		var out, errw bytes.Buffer
		got := run(t.Context(), append(append([]string{"zones"}, args...), "--keys", dir), strings.NewReader(""), &out, &errw)
		if text := out.String() + errw.String(); got != code || !strings.Contains(text, want) {
			t.Fatalf("rhumb zones %s: exit %d, want %d and %q; it said:\n%s", strings.Join(args, " "), got, code, want, text)
		}
		return out.String()
	}
	say(exitNotFound, "no key files", "ds", "demo.test")
	say(exitUsage, "--algorithm", "keygen", "demo.test", "--algorithm", "rsa")
	say(exitOK, "KSK", "keygen", "demo.test")
	say(exitRefused, "rhumb zones roll", "keygen", "demo.test")
	say(exitNotFound, "no key of demo.test is meant for its parent", "ds", "demo.test")
	files, _ := filepath.Glob(filepath.Join(dir, "K*"))
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || strings.HasSuffix(f, ".private") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, info.Mode(), err)
		}
		os.Remove(f)
	}
	say(exitOK, "KSK", "keygen", "demo.test", "--ds-after", "0s")
	first := say(exitOK, " DS ", "ds", "demo.test")
	given := say(exitOK, " DNSKEY 256 3 13 ", "dnskey", "demo.test")
	say(exitOK, "published", "roll", "demo.test", "zsk")
	if both := say(exitOK, given, "dnskey", "demo.test"); strings.Count(both, "\n") != 2 {
		t.Errorf("in a roll others are to publish %s, want both ZSKs", both)
	}
	say(exitRefused, "on its way in", "roll", "demo.test", "zsk")
	say(exitOK, "waits for its DS", "roll", "demo.test", "ksk")
	say(exitUsage, "--parent", "roll", "demo.test", "ksk")
	both := say(exitOK, strings.TrimSpace(first), "ds", "demo.test")
	if strings.Count(both, " DS ") != 2 {
		t.Errorf("the parent is asked for %s, want both keys", both)
	}
	say(exitRefused, "does not answer with", "roll", "demo.test", "ksk", "--parent", parentWith(t, first))
	parent := parentWith(t, both)
	say(exitOK, "not yet", "roll", "demo.test", "ksk", "--parent", parent)
	say(exitRefused, "", "roll", "demo.test", "ksk", "--parent", parent)
	say(exitOK, `"use": "signs"`, "keys", "demo.test", "-o", "json")
}

// TestCheckOtherKeys: `check --keys` holds other providers' keys against ours, as the nodes
// do, and says where the one stands that cannot be beside them.
func TestCheckOtherKeys(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../internal/config/testdata/bad/zone-dnssec")); err != nil {
		t.Fatal(err)
	}
	file, keys := filepath.Join(dir, "fleet.yaml"), filepath.Join(dir, "keys")
	plain, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var ours []*dnssec.Key
	for _, sep := range []bool{true, false} {
		k, err := dnssec.Generate("demo.test.", dnssec.P256, sep, dnssec.Times{})
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, k)
	}
	theirs, err1 := dnssec.Generate("demo.test.", dnssec.P256, false, dnssec.Times{})
	alien, err2 := dnssec.Generate("demo.test.", dnssec.Ed25519, false, dnssec.Times{})
	if err := errors.Join(err1, err2, os.Mkdir(keys, 0o700)); err != nil {
		t.Fatal(err)
	}
	check := func(code int, want string, k *dnssec.Key, more ...string) {
		t.Helper()
		line := fmt.Sprintf(", dnssec: on, other_keys: {them: {dnskey: %q}}", k.Public.String())
		if err := os.WriteFile(file, []byte(strings.Replace(string(plain), ", dnssec: maybe", line, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		var out, errw bytes.Buffer
		got := run(t.Context(), append([]string{"check", file}, more...), strings.NewReader(""), &out, &errw)
		if text := out.String() + errw.String(); got != code || !strings.Contains(text, want) {
			t.Errorf("exit %d, want %d and %q; it said:\n%s", got, code, want, text)
		}
	}
	check(exitOK, "is sound", alien)
	check(exitNotFound, "no key files", theirs, "--keys", keys)
	if err := save(keys, ours); err != nil {
		t.Fatal(err)
	}
	check(exitOK, "is sound", theirs, "--keys", keys)
	const place = "fleet.yaml:6:61: zones.serve.demo.test.other_keys.them.dnskey: "
	check(exitConfig, place+"no key of ours signs with its algorithm 15", alien, "--keys", keys)
	check(exitConfig, place+"has the tag", ours[1], "--keys", keys)
	if err := os.WriteFile(filepath.Join(dir, "node.yaml"), []byte("node: {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if got := run(t.Context(), []string{"check", filepath.Join(dir, "node.yaml"), "--keys", keys}, strings.NewReader(""), &out, &out); got != exitUsage {
		t.Errorf("a node file with --keys: exit %d\n%s", got, out.String())
	}
}

// parentWith serves test. with these DS records of demo.test and returns its address.
func parentWith(t *testing.T, ds string) string {
	t.Helper()
	s, err := authdns.New(authdns.Config{Site: "ams1", Node: "ams1-a", Workers: 1, Listeners: []authdns.Listener{{Level: placement.TopLevel, Addr: netip.MustParseAddrPort("127.0.0.1:0")}}})
	if err != nil {
		t.Fatal(err)
	}
	if errs := s.SetZones([]authdns.Source{{Zone: placement.Zone{Name: "test."}, Data: []byte("$TTL 300\n@ SOA ns b 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\ndemo NS ns\n" + ds)}}); errs != nil {
		t.Fatal(errs)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addrs()[0].String()
}

// TestKeyDir: keys are read for zones that are to be signed, and a change of the files
// is seen.
func TestKeyDir(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	k := keyDir{dir: dir}
	signed := placement.Zone{Name: "demo.test.", DNSSEC: placement.Online}
	if keys, _ := k.load(signed, log); keys != nil || k.changed() {
		t.Errorf("an empty directory: %v, changed %v", keys, k.changed())
	}
	made, err := dnssec.Generate("demo.test.", dnssec.P256, true, dnssec.Times{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := made.Save(dir); err != nil {
		t.Fatal(err)
	}
	if !k.changed() {
		t.Error("a new key is not seen")
	}
	if keys, err := k.load(placement.Zone{Name: "demo.test."}, log); keys != nil || err != nil {
		t.Error("keys for a zone that is not signed")
	}
	if keys, err := k.load(signed, log); len(keys) != 1 || err != nil || k.changed() {
		t.Errorf("%d keys, changed %v", len(keys), k.changed())
	}
	none := &keyDir{}
	if keys, err := none.load(signed, log); keys != nil || none.changed() || err == nil || !strings.Contains(err.Error(), "dnssec.keys") {
		t.Errorf("without a directory: %v, %v", keys, err)
	}
}
