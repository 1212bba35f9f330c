package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rhumb/placement"
)

// docWords returns what stands between backquotes in a page: the names that the
// page explains.
func docWords(t *testing.T, name string) map[string]bool {
	t.Helper()
	out := make(map[string]bool)
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(read(t, name), -1) {
		out[m[1]] = true
	}
	return out
}

func docPackage(t *testing.T, dir string) *pkg {
	t.Helper()
	for _, p := range load(t) {
		if p.dir == dir {
			return p
		}
	}
	t.Fatalf("no package %s", dir)
	return nil
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// codeMetrics finds the metrics of the code: the names given to the client
// library, whole or put together from a prefix by a helper of the same file.
func codeMetrics(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	whole := regexp.MustCompile(`^rhumb_[a-z0-9_]*[a-z0-9]$`)
	for _, p := range load(t) {
		for file, f := range p.files {
			if !slices.Contains(imports(f), "github.com/prometheus/client_golang/prometheus") {
				continue
			}
			prefix := metricPrefix(f)
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := metricName(n, prefix); ok && whole.MatchString(s) {
					out[s] = file
				}
				return true
			})
		}
	}
	if len(out) < 40 {
		t.Fatalf("only %d metrics found in the code: does the test still know how they are made?", len(out))
	}
	return out
}

// metricPrefix returns the prefix which a helper of the file puts before names.
func metricPrefix(f *ast.File) (prefix string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if b, ok := n.(*ast.BinaryExpr); ok && b.Op == token.ADD {
			if s, ok := literal(b.X); ok && strings.HasPrefix(s, "rhumb_") && strings.HasSuffix(s, "_") {
				prefix = s
			}
		}
		return true
	})
	return prefix
}

func metricName(n ast.Node, prefix string) (string, bool) {
	switch n := n.(type) {
	case *ast.KeyValueExpr: // prometheus.GaugeOpts{Name: "…"}
		if id, ok := n.Key.(*ast.Ident); ok && id.Name == "Name" {
			return literal(n.Value)
		}
	case *ast.CallExpr: // gauge("…", help)
		if _, local := n.Fun.(*ast.Ident); !local || len(n.Args) < 2 {
			return "", false
		}
		s, ok := literal(n.Args[0])
		if ok && prefix != "" && !strings.HasPrefix(s, "rhumb_") {
			s = prefix + s
		}
		return s, ok
	}
	return "", false
}

// TestMetricsAreDocumented: the page and the code name the same metrics.
func TestMetricsAreDocumented(t *testing.T) {
	words, code := docWords(t, "docs/reference/metrics.md"), codeMetrics(t)
	for name, file := range code {
		if !words[name] {
			t.Errorf("docs/reference/metrics.md lacks %s (%s)", name, file)
		}
	}
	for w := range words {
		if regexp.MustCompile(`^rhumb_[a-z0-9_]+$`).MatchString(w) && code[w] == "" {
			t.Errorf("docs/reference/metrics.md names %s, which is not in the code", w)
		}
	}
}

// settings walks the structs of internal/config by their yaml tags and returns
// every path of keys: "bgp.peers[].addr", "sites.NAME.at".
type settings struct {
	structs map[string]*ast.StructType
	paths   []string
}

func (s *settings) walk(path string, e ast.Expr, within []string) {
	switch e := e.(type) {
	case *ast.StarExpr:
		s.walk(path, e.X, within)
		return
	case *ast.ArrayType:
		if id, ok := e.Elt.(*ast.Ident); ok && s.structs[id.Name] != nil {
			s.walk(path+"[]", e.Elt, within)
			return
		}
	case *ast.MapType:
		if id, ok := e.Value.(*ast.Ident); ok && s.structs[id.Name] != nil {
			s.walk(path+".NAME", e.Value, within)
			return
		}
	case *ast.Ident:
		// A branch of branches: its keys are described once.
		if st := s.structs[e.Name]; st != nil && !slices.Contains(within, e.Name) {
			s.fields(path, st, append(slices.Clone(within), e.Name))
			return
		}
	case *ast.StructType:
		s.fields(path, e, within)
		return
	}
	s.paths = append(s.paths, path)
}

func (s *settings) fields(path string, st *ast.StructType, within []string) {
	for _, f := range st.Fields.List {
		if f.Tag == nil {
			continue
		}
		raw, _ := strconv.Unquote(f.Tag.Value)
		key := reflect.StructTag(raw).Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		s.walk(strings.TrimPrefix(path+"."+key, "."), f.Type, within)
	}
}

func configPaths(t *testing.T, root string) []string {
	s := &settings{structs: make(map[string]*ast.StructType)}
	for _, f := range docPackage(t, "internal/config").files {
		ast.Inspect(f, func(n ast.Node) bool {
			if ts, ok := n.(*ast.TypeSpec); ok {
				if st, ok := ts.Type.(*ast.StructType); ok {
					s.structs[ts.Name.Name] = st
				}
			}
			return true
		})
	}
	s.walk("", &ast.Ident{Name: root}, nil)
	if len(s.paths) < 20 {
		t.Fatalf("only %d settings found below %s", len(s.paths), root)
	}
	return s.paths
}

// TestSettingsAreDocumented: every key of a node file and of a fleet file stands
// in the page, by its whole path; and the page has no key that the files lack.
func TestSettingsAreDocumented(t *testing.T) {
	words := docWords(t, "docs/reference/config.md")
	paths := append(configPaths(t, "Node"), configPaths(t, "fleetFile")...)
	for _, p := range paths {
		if !words[p] {
			t.Errorf("docs/reference/config.md lacks `%s`", p)
		}
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
	for _, m := range row.FindAllStringSubmatch(read(t, "docs/reference/config.md"), -1) {
		if !slices.Contains(paths, m[1]) {
			t.Errorf("docs/reference/config.md describes `%s`, which no file has", m[1])
		}
	}
}

// TestRulesAreDocumented: the page is the table of the code, word for word.
func TestRulesAreDocumented(t *testing.T) {
	page := read(t, "docs/reference/rules.md")
	for _, r := range placement.Rules() {
		override := "no"
		if r.Override {
			override = "yes"
		}
		if row := fmt.Sprintf("| `%s` | %s | %s | %s |", r.Name, r.Threshold, r.Enforcer, override); !strings.Contains(page, row) {
			t.Errorf("docs/reference/rules.md lacks the row\n%s", row)
		}
	}
}

// TestCommandsAreDocumented: every command that help shows, and every flag.
func TestCommandsAreDocumented(t *testing.T) {
	page := read(t, "docs/reference/cli.md")
	for file, f := range docPackage(t, "cmd/rhumb").files {
		ast.Inspect(f, func(n ast.Node) bool {
			if fn, ok := n.(*ast.FuncDecl); ok && hidden(fn) {
				return false // for the lab's own processes
			}
			if use, ok := commandUse(n); ok && !strings.Contains(page, "`"+use) && !strings.Contains(page, use+"\n") {
				t.Errorf("docs/reference/cli.md lacks the command %q (%s)", use, file)
			}
			if flag, ok := flagName(n); ok && !strings.Contains(page, "`--"+flag) {
				t.Errorf("docs/reference/cli.md lacks the flag --%s (%s)", flag, file)
			}
			return true
		})
	}
}

func hidden(fn *ast.FuncDecl) (yes bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if kv, ok := n.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == "Hidden" {
				yes = true
			}
		}
		return true
	})
	return yes
}

func commandUse(n ast.Node) (string, bool) {
	kv, ok := n.(*ast.KeyValueExpr)
	if !ok {
		return "", false
	}
	if id, ok := kv.Key.(*ast.Ident); !ok || id.Name != "Use" {
		return "", false
	}
	return literal(kv.Value)
}

// flagName recognises cmd.Flags().StringVar(&v, "name", …).
func flagName(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) < 4 {
		return "", false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !strings.HasSuffix(strings.TrimSuffix(sel.Sel.Name, "P"), "Var") {
		return "", false
	}
	return literal(call.Args[1])
}

// allTests returns the test functions of the tree by name; true: behind the tag e2e.
func allTests(t *testing.T) map[string][]bool {
	out := make(map[string][]bool)
	for _, p := range load(t) {
		for file, f := range p.tests {
			tagged := strings.HasPrefix(read(t, file), "//go:build e2e")
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Test") {
					out[fn.Name.Name] = append(out[fn.Name.Name], tagged)
				}
			}
		}
	}
	return out
}

// TestFeaturesAreTrue: F1..F21 in order, each with a state, and every test named
// exists and is marked when it needs root. What is done names a test.
func TestFeaturesAreTrue(t *testing.T) {
	page := read(t, "docs/features.md")
	row := regexp.MustCompile(`(?m)^\| F(\d+) \|[^|]*\| (done|thin|planned) \|[^|]*\|([^|]*)\|$`)
	rows := row.FindAllStringSubmatch(page, -1)
	if len(rows) != 21 {
		t.Errorf("docs/features.md has %d rows F1..F21 with a state, want 21", len(rows))
	}
	for i, m := range rows {
		if m[1] != strconv.Itoa(i+1) {
			t.Errorf("row %d of docs/features.md is F%s", i+1, m[1])
		}
		if m[2] != "planned" && !strings.Contains(m[3], "`Test") {
			t.Errorf("F%s is %s and names no test", m[1], m[2])
		}
	}
	tests := allTests(t)
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9_]*)`(\\*?)").FindAllStringSubmatch(page, -1) {
		if len(tests[m[1]]) == 0 {
			t.Errorf("docs/features.md names %s, which does not exist", m[1])
		} else if !slices.Contains(tests[m[1]], m[2] == "*") {
			t.Errorf("docs/features.md: %s%s: the star means that it needs root (tag e2e)", m[1], m[2])
		}
	}
}

// TestFrontPage: the two commands stand in the README.
func TestFrontPage(t *testing.T) {
	page := read(t, "README.md")
	for _, want := range []string{"make run ", "make test ", "docs/features.md", "placement/geo/SOURCES.md", "Number Resource Organization"} {
		if !strings.Contains(page, want) {
			t.Errorf("README.md lacks %q", want)
		}
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root(t) && skipDir(path, d.Name()) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			rel, _ := filepath.Rel(root(t), path)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLinksLead: a link between pages leads somewhere, and to a heading that is there.
func TestLinksLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") || m[1]+m[2] == "" {
				continue
			}
			to := page
			if m[1] != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(page), m[1]))
			}
			if _, err := os.Stat(filepath.Join(root(t), to)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
				continue
			}
			if m[2] != "" && strings.HasSuffix(to, ".md") && !slices.Contains(anchors(read(t, to)), m[2][1:]) {
				t.Errorf("%s links to %s, which has no heading %s", page, to, m[2])
			}
		}
	}
}

// anchors are the names by which the headings of a page are linked to.
func anchors(page string) (out []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(name, " ", "-"))
	}
	return out
}

// TestPagesAreListed: who begins at docs/README.md finds every page.
func TestPagesAreListed(t *testing.T) {
	for _, index := range []string{"docs/README.md", "docs/decisions/README.md"} {
		text, dir := read(t, index), filepath.Dir(index)
		for _, page := range pages(t) {
			rel, err := filepath.Rel(dir, page)
			if err != nil || strings.HasPrefix(rel, "..") || page == index || dir == "docs" && strings.HasPrefix(rel, "decisions/") {
				continue
			}
			if !strings.Contains(text, "]("+filepath.ToSlash(rel)+")") {
				t.Errorf("%s does not list %s", index, rel)
			}
		}
	}
}

// TestMapIsWhole: the map for newcomers names every package.
func TestMapIsWhole(t *testing.T) {
	page := docWords(t, "ARCHITECTURE.md")
	for _, p := range load(t) {
		base, parent := path.Base(p.dir), path.Base(path.Dir(p.dir))
		if len(p.files) > 0 && !page[p.dir] && !page[p.dir+"/"] && !page[base] && !page[parent+"/"+base] {
			t.Errorf("ARCHITECTURE.md does not name %s", p.dir)
		}
	}
}

// TestPartPages: the pages of the parts stand under the same headings.
func TestPartPages(t *testing.T) {
	want := []string{"## Name", "## Words", "## Flow", "## Settings", "## Examples"}
	for _, part := range []string{"authdns", "bgp", "edge", "health", "placement"} {
		var got []string
		for _, line := range strings.Split(read(t, part+"/README.md"), "\n") {
			if strings.HasPrefix(line, "## ") {
				got = append(got, line)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s/README.md has the headings %v, want %v", part, got, want)
		}
	}
}

// TestRFCsAreCited: a file named in the table cites its RFC.
func TestRFCsAreCited(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| (RFC [0-9]+) \\|.*\\| `([^`]+)` \\|$")
	rows := row.FindAllStringSubmatch(read(t, "docs/reference/rfcs.md"), -1)
	if len(rows) < 40 {
		t.Errorf("docs/reference/rfcs.md has %d rows, want more than 40", len(rows))
	}
	for _, m := range rows {
		if !strings.Contains(read(t, m[2]), m[1]) {
			t.Errorf("docs/reference/rfcs.md: %s does not cite %s", m[2], m[1])
		}
	}
}

// TestAPIIsDocumented: the page has every row of the API's route table.
func TestAPIIsDocumented(t *testing.T) {
	page, rows := read(t, "docs/reference/api.md"), 0
	ast.Inspect(docPackage(t, "internal/api").files["internal/api/routes.go"], func(n ast.Node) bool {
		c, ok := n.(*ast.CompositeLit)
		if !ok || len(c.Elts) < 5 {
			return true
		}
		method, isMethod := literal(c.Elts[0])
		path, isPath := literal(c.Elts[1])
		if rows++; isMethod && isPath && !strings.Contains(page, "`"+method+" "+path+"`") {
			t.Errorf("docs/reference/api.md lacks %s %s", method, path)
		}
		return true
	})
	if rows < 20 {
		t.Errorf("only %d rows found in the route table", rows)
	}
}

// TestPagesShowSamples: what a page prints is the sample that a test loads.
func TestPagesShowSamples(t *testing.T) {
	for sample, page := range map[string]string{"etc/node-authdns.yaml": "docs/how-to/dns-only.md", "etc/node-bgp.yaml": "docs/how-to/bgp-only.md"} {
		text := read(t, page)
		for _, line := range strings.Split(read(t, sample), "\n") {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.Contains(text, line) {
				t.Errorf("%s lacks the line %q of %s", page, line, sample)
			}
		}
	}
}
