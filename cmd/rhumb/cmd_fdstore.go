package main

import (
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"rhumb/edge/fdstore"
)

// fdstoreListener is the descriptor that the role edge passes: those before are the standard
// ones.
const fdstoreListener = 3

// fdstoreCommand is the process that the role edge starts beside itself.
func (a *app) fdstoreCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fdstore", Short: "Hold the sockets of sessions while rhumb-edge dies and begins", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return fdstore.Serve(fdstoreListener, fdstore.Patience) },
	}
}

// socketStore is where the sessions' sockets are held besides.
func socketStore(u *unit) fdstore.Config {
	return fdstore.Config{Socket: u.socket("fdstore.sock"), Command: func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", "fdstore") // this binary, also if it was replaced
		cmd.Args[0] = "rhumb"
		cmd.Env, cmd.Dir, cmd.Stderr = []string{"GOMAXPROCS=1"}, "/", os.Stderr
		return cmd
	}}
}
