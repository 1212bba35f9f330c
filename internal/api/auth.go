package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// role is what a caller may do.
type role int

// The roles, weaker first.
const (
	roleNone role = iota
	roleRead
	roleOperate // drain, force, dial, freeze, pin, apply, slots
)

// caller is who stands at the other end of a connection.
type caller struct {
	role role
	who  string // for the audit: user name, or address
}

type callerKey struct{}

// callerOf returns who asks; somebody unknown may do nothing.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// admit judges a connection when it is accepted: a unix socket by the peer's
// uid and groups, TCP by where it comes from.
func admit(ctx context.Context, conn net.Conn, lab bool) context.Context {
	c := caller{}
	switch conn := conn.(type) {
	case *net.UnixConn:
		c = unixCaller(conn)
	default:
		c = tcpCaller(conn.RemoteAddr(), lab)
	}
	return context.WithValue(ctx, callerKey{}, c)
}

func tcpCaller(remote net.Addr, lab bool) caller {
	a, ok := remote.(*net.TCPAddr)
	if !ok || !a.IP.IsLoopback() {
		return caller{}
	}
	if lab {
		return caller{role: roleOperate, who: "lab page"}
	}
	return caller{role: roleRead, who: a.IP.String()}
}

func unixCaller(conn *net.UnixConn) caller {
	raw, err := conn.SyscallConn()
	if err != nil {
		return caller{}
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}) != nil || err != nil {
		return caller{}
	}
	return judgePeer(cred.Uid, cred.Gid, uint32(os.Getuid()), uint32(os.Getgid()), lookupUser)
}

// judgePeer: root, the owner of this process and the members of its group operate.
func judgePeer(uid, gid, ownUID, ownGID uint32, lookup func(uint32) (name string, groups []string)) caller {
	name, groups := lookup(uid)
	c := caller{who: name}
	if uid == 0 || uid == ownUID || gid == ownGID || slices.Contains(groups, strconv.FormatUint(uint64(ownGID), 10)) {
		c.role = roleOperate
	}
	return c
}

// lookupUser names a uid and its groups; a uid without a name has none.
func lookupUser(uid uint32) (name string, groups []string) {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.LookupId(id)
	if err != nil {
		return "uid " + id, nil
	}
	groups, _ = u.GroupIds() // unknown groups grant nothing
	return u.Username, groups
}

// identify says who asks: by the connection, by a client certificate, by a token.
// The strongest counts. A token that nobody has is an error, even where reading needs
// none: whoever sends one believes to be somebody.
func identify(r *http.Request, tokens *Tokens) (caller, error) {
	c := callerOf(r.Context())
	if cert := certCaller(r); cert.role > c.role || c.role == roleNone {
		c = cert
	}
	secret, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if tokens == nil || !bearer {
		return c, nil
	}
	t, ok := tokens.caller(strings.TrimSpace(secret))
	if !ok {
		return caller{}, fmt.Errorf("%w: no such token", ErrUnknownCaller)
	}
	if t.role > c.role {
		c = t
	}
	return c, nil
}

// allow refuses a caller below the role that a route needs.
func allow(r *http.Request, need role) error {
	c := callerOf(r.Context())
	if c.role >= need {
		return nil
	}
	return fmt.Errorf("%s %s: %w: %s may read only; use the unix socket of the unit as root or as a member of its group, or a token of an operator",
		r.Method, r.URL.Path, ErrForbidden, describe(c))
}

func describe(c caller) string {
	if c.who == "" {
		return "this connection"
	}
	return c.who
}

// knownHost guards loopback TCP against DNS rebinding: a page from elsewhere
// whose name points at us still sends its own name as Host. Over the unix
// socket no browser speaks.
func knownHost(r *http.Request) bool {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		return true
	}
	if r.TLS != nil {
		return true // a browser has compared the name with our certificate
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	switch strings.Trim(strings.ToLower(host), "[]") {
	case "127.0.0.1", "::1", "localhost":
		return true
	}
	return false
}
