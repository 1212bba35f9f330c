package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

const module = "rhumb"

// pkg is a package of the tree as its source says.
type pkg struct {
	dir   string // relative to the root, "placement/lpm"
	doc   string
	files map[string]*ast.File // non-test files by relative path
	tests map[string]*ast.File
	fset  *token.FileSet
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("no go.mod at %s: %v", dir, err)
	}
	return dir
}

// load parses every package of the module; nested modules and testdata are left out.
func load(t *testing.T) []*pkg {
	t.Helper()
	top := root(t)
	found := make(map[string]*pkg)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != top && skipDir(path, d.Name()) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, _ := filepath.Rel(top, path)
		dir := filepath.ToSlash(filepath.Dir(rel))
		if found[dir] == nil {
			found[dir] = &pkg{dir: dir, files: map[string]*ast.File{}, tests: map[string]*ast.File{}, fset: token.NewFileSet()}
		}
		return found[dir].add(path, filepath.ToSlash(rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []*pkg
	for _, p := range found {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].dir < out[j].dir })
	return out
}

func skipDir(path, name string) bool {
	if strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" {
		return true
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil
}

func (p *pkg) add(path, rel string) error {
	f, err := parser.ParseFile(p.fset, path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	if strings.HasSuffix(rel, "_test.go") {
		p.tests[rel] = f
		return nil
	}
	p.files[rel] = f
	if f.Doc != nil && p.doc == "" {
		p.doc = f.Doc.Text()
	}
	return nil
}

// imports returns a file's import paths.
func imports(f *ast.File) []string {
	var out []string
	for _, i := range f.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}
