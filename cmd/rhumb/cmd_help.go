package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"rhumb/placement"
)

// helpCommands say what this program is and how scripts may rely on it.
func (a *app) helpCommands() []*cobra.Command {
	version := &cobra.Command{Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			raw := fmt.Appendf(nil, `{"version":%q,"go":%q,"os":%q,"arch":%q}`, version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return a.show(result{raw: raw, names: []string{version}, text: func(w io.Writer, _ style) {
				fmt.Fprintf(w, "rhumb %s, %s, %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			}})
		}}
	// A command which cannot run is listed as a topic of help.
	topic := func(name, short, text string) *cobra.Command {
		return &cobra.Command{Use: name, Short: short, Long: text}
	}
	return []*cobra.Command{version, topic("exit-codes", "What the exit codes mean", exitCodeText),
		topic("output", "Forms of output", outputText), topic("environment", "Environment variables", environmentText),
		topic("rules", "The one table of rules", rulesText())}
}

const exitCodeText = `Exit codes; scripts may rely on them:
    0  ok
    1  failed
    2  usage
    3  the server is not reachable
    4  not found
    5  refused by a rule (see: rhumb help rules)
    6  unhealthy (status --exit-status; checks --now: a look failed)
    7  timed out, still in progress
    8  not permitted
    9  the configuration is invalid
  130  interrupted`

const outputText = `Results go to standard output, everything else to standard error.
  -o table    for people (default); wide: more columns
  -o json     the server's own document: apiVersion, kind, items; fields are only added
  -o ndjson   one item a line
  -o name     names only, for scripts
Symbols are plain ASCII when the output is not a terminal, with TERM=dumb, and in
the locale C. Colours stand on a terminal only; --color always|never, NO_COLOR.`

const environmentText = `Every flag has a variable: RHUMB_ and its name in capitals, dashes as underscores
(--exit-status: RHUMB_EXIT_STATUS). A flag on the command line wins. The usual ones:
  RHUMB_SERVER    unix socket or URL of the unit to ask
  RHUMB_OUTPUT    table, wide, json, ndjson, name
  RHUMB_TIMEOUT   as 10s
  RHUMB_COLOR     auto, always, never
  NO_COLOR        no colours, whatever its value`

func rulesText() string {
	out := "A refusal names its rule, the object, what it has, and the limit (exit 5).\nRules marked * can be set aside by name: --override NAME\n"
	for _, r := range placement.Rules() {
		mark := " "
		if r.Override {
			mark = "*"
		}
		out += fmt.Sprintf("\n%s %-18s %s\n  %-18s judged by %s\n", mark, r.Name, r.Threshold, "", r.Enforcer)
	}
	return out
}
