package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/internal/api"
)

// TestTokenOverTLS: the command line shows its token to an https server whose
// certificate it trusts, and to nobody else.
func TestTokenOverTLS(t *testing.T) {
	var shown []string
	unit := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = append(shown, r.Header.Get("Authorization"))
		if r.URL.Path == "/api/v1/nodes" {
			http.Redirect(w, r, "https://other.test/", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(`{"items":[]}`))
	})
	secure, clear := httptest.NewTLSServer(unit), httptest.NewServer(unit)
	t.Cleanup(secure.Close)
	t.Cleanup(clear.Close)
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, _, err := api.NewToken("test", api.WordViewer)
	if err != nil {
		t.Fatal(err)
	}
	token := put("token", secret+"\n")
	ca := put("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	for _, c := range []struct {
		name string
		line []string
		exit int
		want string // shown, or said
	}{
		{"trusted", []string{"--server", secure.URL, "--ca-file", ca, "--token-file", token}, exitOK, "Bearer " + secret},
		{"without a token", []string{"--server", secure.URL, "--ca-file", ca}, exitOK, ""},
		{"a certificate that nobody knows", []string{"--server", secure.URL, "--token-file", token}, exitUnreachable, "certificate"},
		{"in clear on this machine", []string{"--server", clear.URL, "--token-file", token}, exitOK, "Bearer " + secret},
		{"in clear over a network", []string{"--server", "http://192.0.2.1:8053", "--token-file", token}, exitUsage, "sent in clear"},
		{"no such token file", []string{"--server", secure.URL, "--token-file", filepath.Join(dir, "none")}, exitUsage, "--token-file"},
		{"two tokens", []string{"--server", secure.URL, "--token-file", put("two", "a b")}, exitUsage, "one token"},
		{"no authority", []string{"--server", secure.URL, "--ca-file", token}, exitUsage, "no certificate"},
		{"half a pair", []string{"--server", secure.URL, "--cert-file", ca}, exitUsage, "go together"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shown = nil
			code, _, errs := cli(t.Context(), append([]string{"slots"}, c.line...)...)
			if code != c.exit {
				t.Fatalf("exit %d, want %d: %s", code, c.exit, errs)
			}
			if code == exitOK && (len(shown) != 1 || shown[0] != c.want) {
				t.Errorf("shown %q, want %q", shown, c.want)
			}
			if code != exitOK && (!strings.Contains(errs, c.want) || len(shown) > 0 || strings.Contains(errs, secret)) {
				t.Errorf("said %q, shown %q", errs, shown)
			}
		})
	}
	shown = nil
	if code, _, _ := cli(t.Context(), "nodes", "--server", secure.URL, "--ca-file", ca, "--token-file", token); code == exitOK || len(shown) != 1 {
		t.Errorf("a redirect was followed: exit %d, shown %q", code, shown)
	}
}

func TestTokenCommand(t *testing.T) {
	code, out, errs := cli(t.Context(), "token", "grafana")
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	if code != exitOK || !strings.HasPrefix(out, "rhumb_") || !strings.HasPrefix(lines[len(lines)-1], "grafana viewer ") || strings.Contains(errs, strings.TrimSpace(out)) {
		t.Fatalf("exit %d %q %q", code, out, errs)
	}
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(errs), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.OpenTokens(file, nil); err != nil {
		t.Errorf("what it says is no token file: %v", err)
	}
	if code, _, _ := cli(t.Context(), "token", "a", "--role", "root"); code != exitUsage {
		t.Errorf("a role unknown: exit %d", code)
	}
}

// TestCheckReadsTheGuard: check says what serve would stumble over.
func TestCheckReadsTheGuard(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "node.yaml")
	text := "version: 1\nnode: {name: ns1, site: ams1, roles: [health]}\nstore: file\nlisten: {http: \"127.0.0.1:8053\", tokens: tokens}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := cli(t.Context(), "check", file); code == exitOK || !strings.Contains(errs, "tokens") {
		t.Errorf("without the file: exit %d %s", code, errs)
	}
	_, line, err := api.NewToken("a", api.WordOperator)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := cli(t.Context(), "check", file); code != exitOK || !strings.Contains(out, "is sound") {
		t.Errorf("with it: exit %d %s%s", code, out, errs)
	}
}
