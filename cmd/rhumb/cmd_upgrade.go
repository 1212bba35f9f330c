package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/config"
)

func (a *app) upgradeCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "upgrade dns",
		Short: "Replace the running name server by a new process without losing a query",
		Long: `Let the running rhumb-dns start the program and the node file that are
installed now. The new process gets all sockets, loads what it serves, and answers;
then the old one ends, when those who are connected to it are done. Where the new
one fails, the old one goes on as if nothing had been asked.`,
		Args:      args(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: []string{"dns"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadNode(file)
			if err != nil {
				return withCode(exitConfig, err)
			}
			return a.upgrade(upgradeSocket(cfg.Listen.Admin))
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/rhumb/node.yaml", "node file")
	return cmd
}

// upgrade asks the unit behind a socket, and waits until its successor answers.
func (a *app) upgrade(path string) error {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return withCode(exitUnreachable, fmt.Errorf("no rhumb-dns of its own runs here (%s: %s)\n  a process with other roles beside authdns is restarted instead", path, cause(err)))
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(successionWithin + 20*time.Second))
	if _, err := fmt.Fprintln(c, "upgrade"); err != nil {
		return withCode(exitUnreachable, err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return withCode(exitUnreachable, fmt.Errorf("rhumb-dns did not say how it went: %w", err))
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if word != "ok" {
		return errors.New("upgrade: " + rest + "\n  the process before goes on; its log says more")
	}
	if !a.global.quiet {
		fmt.Fprintf(a.out, "process %s answers now\n", rest)
	}
	return nil
}
