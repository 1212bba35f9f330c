package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestPagesNameCommands: every command line that a page, a unit or an alert shows names a
// command and flags that there are.
func TestPagesNameCommands(t *testing.T) {
	const top = "../.."
	lines := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", ".lab", "bin", "testdata", "third_party":
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".md", ".service", ".yaml":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, line := range commandLines(string(text)) {
			lines++
			if why := wrongCommand(line); why != "" {
				t.Errorf("%s: rhumb %s: %s", strings.TrimPrefix(path, top+"/"), line, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lines < 200 {
		t.Errorf("only %d command lines found: does the test still know how pages show them?", lines)
	}
	for line, want := range map[string]bool{"drain ams1 --reason x": true, "drain --raeson x": false, "drian ams1": false, "zones": true, "help rules": true, "help ruels": false, "lab exec a -- curl --head x": true} {
		if have := wrongCommand(line) == ""; have != want {
			t.Errorf("rhumb %s is taken: %v, want %v", line, have, want)
		}
	}
}

// commandLines are what stands behind rhumb where a command begins: between backquotes,
// or at the beginning of a line, behind a prompt or a path.
func commandLines(text string) (out []string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for _, m := range regexp.MustCompile("(?m)(?:`|^\\s*(?:\\$ |ExecStart=|ExecReload=)?|&& )(?:\\S*bin/)?rhumb ([a-z][^`\n]*)").FindAllStringSubmatch(text, -1) {
		line := regexp.MustCompile(`\s([#&|>;…]|\s).*`).ReplaceAllString(m[1], "")
		out = append(out, strings.TrimRight(line, ")"))
	}
	return out
}

// wrongCommand says what is wrong with a command line, or nothing.
func wrongCommand(line string) string {
	words, root := strings.Fields(line), (&app{}).root()
	root.InitDefaultHelpCmd()
	if words[0] == "help" {
		words = words[1:]
	}
	cmd, _, err := root.Find(words)
	if err != nil {
		return err.Error()
	}
	if rest := words[len(strings.Fields(cmd.CommandPath()))-1:]; cmd.HasSubCommands() && len(rest) > 0 && isWord(rest[0]) {
		return "there is no such command"
	}
	cmd.InitDefaultHelpFlag()
	for _, w := range words {
		if w == "--" {
			break
		}
		if name, ok := strings.CutPrefix(w, "--"); ok && !hasFlag(cmd, regexp.MustCompile(`^[a-z0-9-]*`).FindString(name)) {
			return "there is no flag --" + name
		}
	}
	return ""
}

// isWord tells a command from a placeholder and from a flag.
func isWord(w string) bool { return regexp.MustCompile(`^[a-z]+$`).MatchString(w) }

func hasFlag(cmd *cobra.Command, name string) bool {
	return cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil
}

// TestArgumentsAreCounted: too many arguments, or too few, are a usage error of every
// command that a person may give.
func TestArgumentsAreCounted(t *testing.T) {
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			if !c.Hidden {
				check(c)
			}
		}
		if !cmd.Runnable() || cmd.HasSubCommands() || cmd.Name() == "help" {
			return
		}
		if cmd.Args == nil {
			t.Errorf("%s takes whatever comes", cmd.CommandPath())
			return
		}
		for _, given := range [][]string{nil, make([]string, 40)} {
			if err := cmd.Args(cmd, given); err != nil && codeOf(err) != exitUsage {
				t.Errorf("%s with %d arguments ends with %d: %v", cmd.CommandPath(), len(given), codeOf(err), err)
			}
		}
	}
	check((&app{}).root())
}
