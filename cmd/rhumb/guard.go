package main

import (
	"crypto/tls"
	"log/slog"

	"rhumb/internal/api"
	"rhumb/internal/config"
)

// httpGuard is what stands before a node's HTTP listener; nil parts are absent.
type httpGuard struct {
	tls    *tls.Config
	tokens *api.Tokens
}

// guardOf reads the files of listen.tls and listen.tokens.
func guardOf(n *config.Node, log *slog.Logger) (g httpGuard, err error) {
	if n.Listen.Tokens != "" {
		if g.tokens, err = api.OpenTokens(n.Listen.Tokens, log); err != nil {
			return g, err
		}
	}
	if f := n.Listen.TLS; f.Cert != "" {
		g.tls, err = api.TLS(api.TLSFiles{Cert: f.Cert, Key: f.Key, Clients: f.Clients})
	}
	return g, err
}
