package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

// clientCommands are those which ask a running unit, or need none.
func clientCommands(a *app) []*cobra.Command {
	return slices.Concat(a.viewCommands(), a.changeCommands(), a.fileCommands(), a.helpCommands(),
		[]*cobra.Command{a.explainCommand(), a.simulateCommand(), a.eventsCommand(), a.queryCommand(), a.benchCommand(), a.detectCommand(), a.geoCommand(), a.tokenCommand(), a.upgradeCommand(), a.shadowCommand(), a.twinCommand()})
}

// client speaks to one unit.
type client struct {
	http  *http.Client
	base  string // http://host[:port]
	where string // for people: the socket's path or the URL
	limit time.Duration
	token string // sent with each request; empty: none
}

// sockets lists where units may listen, in the order in which they are tried.
func sockets(runDir, cwd string) []string {
	found, _ := filepath.Glob(filepath.Join(runDir, "*.sock")) // the pattern is sound
	slices.SortStableFunc(found, func(a, b string) int { return rank(a) - rank(b) })
	for dir := cwd; dir != ""; dir = filepath.Dir(dir) {
		if s := filepath.Join(dir, ".lab", "admin.sock"); exists(s) {
			found = append(found, s)
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return found
}

// rank puts the unit first which sees the whole fleet.
func rank(socket string) int {
	i := slices.Index([]string{"rhumb", "rhumb-director", "rhumb-dns", "rhumb-bgp", "rhumb-edge"},
		strings.TrimSuffix(filepath.Base(socket), ".sock"))
	if i < 0 {
		return 99
	}
	return i
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// runDir is where units of this machine keep their sockets.
const runDir = "/run/rhumb"

// connect finds the unit to speak to: --server, else the first socket that answers.
func (a *app) connect() (*client, error) {
	if s := a.global.server; s != "" {
		return a.dial(s)
	}
	cwd, err := os.Getwd()
	if err != nil {
		cwd = ""
	}
	tried := sockets(runDir, cwd)
	var errs []string
	for _, s := range tried {
		c, err := net.DialTimeout("unix", s, time.Second)
		if err == nil {
			c.Close()
			return a.dial(s)
		}
		errs = append(errs, "  "+s+": "+cause(err))
	}
	text := "no unit answers on this machine"
	if len(tried) == 0 {
		text += ": there is no socket in " + runDir + ", and no .lab/admin.sock here or above"
	} else {
		text += "; tried\n" + strings.Join(errs, "\n")
	}
	return nil, withCode(exitUnreachable, errors.New(text+"\n  start the lab with: rhumb lab      or name a unit: --server PATH|URL, RHUMB_SERVER"))
}

// dial makes a client for a socket's path or a URL, without connecting yet.
func (a *app) dial(server string) (*client, error) {
	c := &client{where: server, limit: a.global.timeout, http: &http.Client{}}
	if strings.HasPrefix(server, "http://") || strings.HasPrefix(server, "https://") {
		u, err := url.Parse(server)
		if err != nil || u.Host == "" {
			return nil, withCode(exitUsage, fmt.Errorf("--server %q is no URL", server))
		}
		c.base = u.Scheme + "://" + u.Host
		return c, a.global.access.dress(c, u)
	}
	path := strings.TrimPrefix(server, "unix:")
	c.base = "http://localhost"
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	return c, nil
}

// get reads a document into v and returns it as it came.
func (c *client) get(ctx context.Context, path string, v any) (json.RawMessage, error) {
	return c.do(ctx, http.MethodGet, path, nil, v)
}

func (c *client) post(ctx context.Context, path string, body, v any) (json.RawMessage, error) {
	return c.do(ctx, http.MethodPost, path, body, v)
}

func (c *client) do(ctx context.Context, method, path string, body, v any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode >= 400 {
		return nil, problem(res.StatusCode, raw)
	}
	if v != nil {
		if err := json.Unmarshal(raw, v); err != nil {
			return nil, fmt.Errorf("%s answers %s with something else than its document: %w", c.where, path, err)
		}
	}
	return raw, nil
}

// send asks; header holds pairs of a name and a value.
func (c *client) send(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return res, nil
}

func (c *client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return withCode(exitInterrupted, errors.New("interrupted"))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return withCode(exitTimeout, fmt.Errorf("%s did not answer within %s; what was asked may be in progress: rhumb status", c.where, c.limit))
	}
	return withCode(exitUnreachable, fmt.Errorf("%s does not answer: %s", c.where, cause(err)))
}

// cause is the innermost error: what the system said.
func cause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// problem turns an answer into an error with the exit code that fits.
func problem(status int, raw []byte) error {
	p := api.Problem{}
	if json.Unmarshal(raw, &p) != nil || p.Detail == "" {
		return fmt.Errorf("the server answers %d %s", status, http.StatusText(status))
	}
	switch status {
	case http.StatusConflict:
		return withCode(exitRefused, &p)
	case http.StatusNotFound:
		return withCode(exitNotFound, &p)
	case http.StatusForbidden, http.StatusUnauthorized:
		return withCode(exitForbidden, &p)
	case http.StatusBadRequest:
		return withCode(exitUsage, &p)
	}
	return &p
}

// refusedBy returns the refusals of an error which a server sent.
func refusedBy(err error) []placement.Refusal {
	var p *api.Problem
	switch {
	case !errors.As(err, &p) || p.Refusal == nil:
		return nil
	case len(p.Refusals) > 0:
		return p.Refusals
	}
	return []placement.Refusal{*p.Refusal}
}

// explainRefusal says what was refused, and the two ways on: look first, or set
// the rules aside by name.
func explainRefusal(err error, what, look, again string) error {
	list := refusedBy(err)
	if len(list) == 0 {
		return err
	}
	var b strings.Builder
	var names []string
	overridable := true
	for i, r := range list {
		if i > 0 {
			b.WriteString("\n  and ")
		} else {
			fmt.Fprintf(&b, "%s refused: ", what)
		}
		fmt.Fprintf(&b, "rule %s, object %s, have %s, limit %s", r.Rule, r.Object, r.Have, r.Limit)
		if r.Hint != "" {
			b.WriteString("\n  " + r.Hint)
		}
		names = append(names, string(r.Rule))
		overridable = overridable && mayOverride(r.Rule)
	}
	if look != "" {
		b.WriteString("\n  see: " + look)
	}
	if overridable {
		fmt.Fprintf(&b, "\n  to do it all the same: %s --override %s", again, strings.Join(names, ","))
	} else {
		b.WriteString("\n  it cannot be overridden; see: rhumb help rules")
	}
	fmt.Fprintf(&b, "      (exit %d)", exitRefused)
	return withCode(exitRefused, errors.New(b.String()))
}

func mayOverride(name placement.RuleName) bool {
	return slices.ContainsFunc(placement.Rules(), func(r placement.Rule) bool { return r.Name == name && r.Override })
}
