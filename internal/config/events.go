package config

import (
	"path"
	"slices"
	"strings"

	"rhumb/placement"
)

// NodeEdge is the edge's part of a node file.
type NodeEdge struct {
	// Tokens is a file with the secrets of resumption tokens, the same at all
	// sites; empty: event streams are refused.
	Tokens string `yaml:"tokens"`
	// Handoff is about the socket of servers that give their sessions away.
	Handoff NodeHandoff `yaml:"handoff"`
}

// NodeHandoff says who may connect to handoff.sock in the admin directory.
type NodeHandoff struct {
	// Group may, besides root and the user of rhumb-edge; empty: nobody else.
	Group string `yaml:"group"`
}

// checkHandoff checks the name only: a node file is checked on other machines too.
func (n *Node) checkHandoff(src *source) {
	const name = "abcdefghijklmnopqrstuvwxyz0123456789_-"
	at := []string{"edge", "handoff", "group"}
	switch g := n.Edge.Handoff.Group; {
	case g == "":
	case len(g) > 32 || strings.Trim(g, name) != "" || strings.ContainsAny(g[:1], "-0123456789"):
		src.fail(at, "%q is not the name of a group", g)
	case !slices.Contains(n.Node.Roles, RoleEdge):
		src.fail(at, "needs role edge, which has the socket")
	}
}

// eventsFile says which paths of the origin are event streams.
type eventsFile struct {
	Path   string `yaml:"path"`
	Strict bool   `yaml:"strict"`
}

// checkEvents checks where a service's event streams are. What resumes one is a secret
// of the client's, which only TLS keeps.
func (d *document) checkEvents(at []string, e *edgeFile) {
	switch p := e.Events.Path; {
	case p == "" && !e.Events.Strict:
	case p != "/" && p != path.Clean("/"+p)+"/":
		d.fail(append(at, "path"), "%q: want a path that begins and ends with a slash", p)
	case e.Kind != placement.Content || e.Origin == "" || e.TLS.Cert == "" || e.Export != "" && e.Export != placement.ExportNone:
		d.fail(at, "event streams need kind content, an origin and tls, and no export_secrets")
	}
}
