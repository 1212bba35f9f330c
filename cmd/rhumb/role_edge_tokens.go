package main

import (
	"context"
	"fmt"
	"os"

	"rhumb/edge/token"
)

// readTokens reads the file of the secrets of resumption tokens. Whoever can read it
// can make tokens: go on with anybody's stream, and stop his.
func readTokens(file string) ([]token.Secret, error) {
	if file == "" {
		return nil, nil
	}
	fi, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("edge.tokens: %w", err)
	}
	if fi.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("edge.tokens: %s: mode %s: everybody can read it; chmod o-rwx", file, fi.Mode().Perm())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("edge.tokens: %w", err)
	}
	secrets, err := token.ParseSecrets(data)
	if err != nil {
		return nil, fmt.Errorf("edge.tokens: %s: %w", file, err)
	}
	return secrets, nil
}

// followTokens gives the agent the secrets of the file whenever they have changed.
func (e *edgeRole) followTokens(ctx context.Context) error {
	file := e.unit.cfg.Edge.Tokens
	if file == "" {
		return nil
	}
	log := e.unit.log
	return followSecrets(ctx, "token secrets", file, readTokens, e.tokens, func(secrets []token.Secret) {
		if err := e.agent.SetTokens(secrets); err != nil {
			log.Error("token secrets: the last good ones stay", "err", err)
		}
	}, log)
}
