package edge

import (
	"bufio"
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
	"time"

	"rhumb/edge/token"
)

// sealed makes a token by hand, as a site of the group would, of one that it gave out.
func sealed(t testing.TB, secret token.Secret, path string, change func(*token.Claims)) string {
	t.Helper()
	keys, err := token.NewKeys([]token.Secret{secret})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c := token.Claims{Session: token.NewSession(), Epoch: 1, Service: serviceID("video"), Object: sha256.Sum256([]byte(path + "?")),
		Began: now.Truncate(time.Second), Expires: now.Add(time.Minute), Position: "n00000001"}
	if change != nil {
		change(&c)
	}
	text, err := keys.Seal(c, now)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestRefusals: each thing that is wrong with a token has a status and a count of its
// own, at every site; what is right about the rest does not help.
func TestRefusals(t *testing.T) {
	s := newStory(t)
	g := newGroup(t, 3, t.TempDir(), s.URL, false)
	own := token.Secret{1, 2, 3}
	make := func(change func(*token.Claims)) string { return sealed(t, own, "/live/a", change) }
	used := make(nil)
	g.first(g.get(0, "/live/a", used))
	good := make(nil)
	for _, c := range []struct {
		name, text string
		want       int
		result     string
	}{
		{"stale epoch", used, http.StatusConflict, "stale"},
		{"expired", make(func(c *token.Claims) { c.Expires = time.Now().Add(-time.Second) }), http.StatusGone, "expired"},
		{"other service", make(func(c *token.Claims) { c.Service++ }), http.StatusForbidden, "service"},
		{"other object", make(func(c *token.Claims) { c.Object[0]++ }), http.StatusForbidden, "object"},
		{"other client", make(func(c *token.Claims) { c.Client = token.ClientOf("somebody else's") }), http.StatusForbidden, "client"},
		{"other group", sealed(t, token.Secret{9}, "/live/a", nil), http.StatusForbidden, "key"},
		{"of a day long ago", "AQAB" + good[4:], http.StatusGone, "expired"},
		{"changed in the head", good[:4] + flip(good[4:5]) + good[5:], http.StatusForbidden, "key"},
		{"changed in the nonce", good[:20] + flip(good[20:21]) + good[21:], http.StatusForbidden, "forged"},
		{"changed in the claims", good[:90] + flip(good[90:91]) + good[91:], http.StatusForbidden, "forged"},
		{"cut off", good[:len(good)-4], http.StatusForbidden, "forged"},
		{"another version", "Ag" + good[2:], http.StatusBadRequest, "malformed"},
		{"no token", "n5", http.StatusBadRequest, "malformed"},
	} {
		for i, site := range g.sites {
			before := tally(t, site.m.feeds, c.result)
			resp := g.get(i, "/live/a", c.text)
			resp.Body.Close()
			if n := tally(t, site.m.feeds, c.result) - before; resp.StatusCode != c.want || n != 1 {
				t.Errorf("%s, site %d: status %d, counted %v times as %s, want %d, once", c.name, i, resp.StatusCode, n, c.result, c.want)
			}
		}
	}
	g.first(g.get(1, "/live/a", good)) // nothing above has used it
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) != 2 {
		t.Errorf("the origin was asked %d times, want 2: for what was not refused", len(s.asked))
	}
}

// flip changes one character of a token's text into another one.
func flip(c string) string {
	if c == "A" {
		return "Q"
	}
	return "A"
}

// TestSecretsRotateLive: the secret changes at one site after the other, in the two
// steps that an operator takes, under a stream that stays. Between any two of them
// each site opens the tokens of each other; then the old secret is worth nothing.
func TestSecretsRotateLive(t *testing.T) {
	s := newStory(t)
	g := newGroup(t, 3, t.TempDir(), s.URL, true)
	old, fresh := token.Secret{1, 2, 3}, token.Secret{4, 5, 6}
	stays := g.get(2, "/live/a", "")
	defer stays.Body.Close()
	lines := bufio.NewScanner(stays.Body)
	id := func() string {
		t.Helper()
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				return text
			}
		}
		t.Fatalf("the stream that stays has ended: %v", lines.Err())
		return ""
	}
	before, last := id(), ""
	for step, secrets := range [][]token.Secret{{old, fresh}, {fresh, old}} {
		for i, site := range g.sites {
			if err := site.SetTokens(secrets); err != nil {
				t.Fatal(err)
			}
			for from := range g.sites { // what each site seals just now, the next one opens
				last = g.first(g.get((from+1)%3, "/live/a", g.first(g.get(from, "/live/a", ""))))
			}
			if t.Failed() {
				t.Fatalf("step %d, after site %d", step, i)
			}
		}
	}
	s.tell(1)
	after := id()
	for _, site := range g.sites {
		if err := site.SetTokens([]token.Secret{fresh}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range g.sites {
		resp := g.get(i, "/live/a", before)
		if resp.Body.Close(); resp.StatusCode != http.StatusForbidden {
			t.Errorf("token of the old secret at site %d: status %d, want %d", i, resp.StatusCode, http.StatusForbidden)
		}
	}
	g.first(g.get(0, "/live/a", last))
	g.first(g.get(1, "/live/a", after)) // of the stream that began under the old one
}
