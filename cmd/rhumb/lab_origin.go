package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// labOriginCommand is the stand-in for a site's own web server in the lab: it
// knows nothing of Rhumb, and listens on the wildcard address as stock servers do.
func labOriginCommand() *cobra.Command {
	var listen, root, name string
	cmd := &cobra.Command{
		Use: "origin", Short: "Serve a directory as a site's web server does", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serveOrigin(cmd.Context(), listen, root, name) },
	}
	cmd.Flags().StringVar(&listen, "listen", ":8080", "address to listen on")
	cmd.Flags().StringVar(&root, "root", ".", "directory to serve")
	cmd.Flags().StringVar(&name, "name", "", "what to say in X-Served-By")
	return cmd
}

func serveOrigin(ctx context.Context, listen, root, name string) error {
	files := http.FileServer(http.Dir(root))
	srv := &http.Server{Addr: listen, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", name)
		files.ServeHTTP(w, r)
	})}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
