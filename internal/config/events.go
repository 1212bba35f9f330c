package config

import (
	"path"

	"rhumb/placement"
)

// NodeEdge is the edge's part of a node file.
type NodeEdge struct {
	// Tokens is a file with the secrets of resumption tokens, the same at all
	// sites; empty: event streams are refused.
	Tokens string `yaml:"tokens"`
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
