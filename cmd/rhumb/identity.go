package main

import "github.com/spf13/cobra"

func identityCommands(a *app) []*cobra.Command { return nil }
