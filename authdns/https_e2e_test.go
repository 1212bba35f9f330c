//go:build e2e

package authdns

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/placement"
)

// TestDoHClients: programs of others resolve by us over HTTPS: curl, who then fetches a
// page from the address that it got, dig over HTTP/2 with POST and with GET, and
// kdig.
func TestDoHClients(t *testing.T) {
	s := startDoH(t, Config{}, "127.0.0.1:0")
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page of "+r.Host) }))
	defer page.Close()
	_, port, _ := net.SplitHostPort(page.Listener.Addr().String())
	if errs := s.SetZones(append(sources(), Source{Zone: placement.Zone{Name: "page.test.", Level: placement.TopLevel}, Data: []byte("$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A 127.0.0.1\n")})); errs != nil {
		t.Fatal(errs)
	}
	at := s.Addrs()[0]
	authority := filepath.Join(t.TempDir(), "ca.pem")
	cert := dialHTTP(t, at, nil).ConnectionState().PeerCertificates[0]
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	clients := []struct {
		want string
		argv []string
	}{
		{"page of www.page.test:" + port, []string{"curl", "-sS", "--max-time", "20", "--doh-insecure", "--doh-url", dohURL(s), "http://www.page.test:" + port + "/"}},
		{"status: NOERROR", []string{"dig", "@127.0.0.1", "-p", fmt.Sprint(at.Port()), "+https", "+tries=1", "www.demo.test", "A"}},
		{"192.0.2.10", []string{"dig", "@127.0.0.1", "-p", fmt.Sprint(at.Port()), "+https-get", "+tries=1", "+short", "www.demo.test", "A"}},
		{"192.0.2.10", []string{"kdig", "@127.0.0.1", "-p", fmt.Sprint(at.Port()), "+https", "+tls-ca=" + authority, "+tls-hostname=ns.demo.test", "+short", "www.demo.test", "A"}},
	}
	for _, c := range clients {
		if out, err := exec.Command(c.argv[0], c.argv[1:]...).CombinedOutput(); err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%v: %v\n%s", c.argv, err, out)
		}
	}
	if got := samples(t, s, "rhumb_dns_requests_total"); !strings.Contains(got, `"https"`) {
		t.Errorf("counted as\n%s", got)
	}
}
