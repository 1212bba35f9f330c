package house

import (
	"go/ast"
	"go/token"
	"path"
	"strings"
	"testing"
)

// TestPackageSentence: every package begins with what it is.
func TestPackageSentence(t *testing.T) {
	for _, p := range load(t) {
		if len(p.files) == 0 {
			continue
		}
		name := ""
		for _, f := range p.files {
			name = f.Name.Name
		}
		want := "Package " + name + " "
		if name == "main" {
			want = "Command " + path.Base(p.dir) + " "
		}
		if !strings.HasPrefix(p.doc, want) {
			t.Errorf("%s: the package comment begins %q, want %q…", p.dir, strings.SplitN(p.doc, "\n", 2)[0], want)
		}
	}
}

// TestNoInitNoGlobals: no hidden effects, no hidden state. Errors, embedded
// files and compiled expressions are constants in all but name.
func TestNoInitNoGlobals(t *testing.T) {
	for _, p := range load(t) {
		for file, f := range p.files {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Name.Name == "init" && d.Recv == nil {
						t.Errorf("%s has an init()", file)
					}
				case *ast.GenDecl:
					checkVars(t, file, d)
				}
			}
		}
	}
}

func checkVars(t *testing.T, file string, d *ast.GenDecl) {
	if d.Tok != token.VAR {
		return
	}
	for _, s := range d.Specs {
		v := s.(*ast.ValueSpec)
		for i, n := range v.Names {
			if file == "cmd/rhumb/main.go" && n.Name == "version" {
				continue // the linker writes it
			}
			if n.Name == "_" || d.Doc != nil && strings.Contains(d.Doc.Text(), "go:embed") || embedded(d, v) {
				continue
			}
			if i < len(v.Values) && constantLike(v.Values[i]) {
				continue
			}
			t.Errorf("%s: package variable %s; pass it in, or make it a constant or a function", file, n.Name)
		}
	}
}

func embedded(d *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, g := range []*ast.CommentGroup{d.Doc, v.Doc} {
		if g == nil {
			continue
		}
		for _, c := range g.List {
			if strings.HasPrefix(c.Text, "//go:embed") {
				return true
			}
		}
	}
	return false
}

// constantLike accepts sentinel errors, and tables of literals which nothing
// writes: arrays and addresses made once.
func constantLike(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CallExpr:
		sel, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		switch sel.Sel.Name {
		case "New", "MustCompile", "MustParsePrefix", "MustParseAddr":
			return true
		}
	case *ast.CompositeLit:
		if a, ok := e.Type.(*ast.ArrayType); ok {
			return a.Len != nil
		}
	}
	return false
}

// TestExportedNamesAreDocumented: every exported name says what it is.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, p := range load(t) {
		for file, f := range p.files {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if ok && fn.Name.IsExported() && fn.Doc == nil && !wellKnown(fn) && exportedReceiver(fn) {
					t.Errorf("%s: %s has no comment", file, fn.Name.Name)
				}
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
					checkTypes(t, file, g)
				}
			}
		}
	}
}

func checkTypes(t *testing.T, file string, g *ast.GenDecl) {
	for _, s := range g.Specs {
		ts := s.(*ast.TypeSpec)
		if ts.Name.IsExported() && ts.Doc == nil && g.Doc == nil {
			t.Errorf("%s: type %s has no comment", file, ts.Name.Name)
		}
	}
}

// wellKnown are methods whose meaning the interface that they fulfil says.
func wellKnown(fn *ast.FuncDecl) bool {
	switch fn.Name.Name {
	case "String", "Error", "Unwrap", "Len", "Less", "Swap", "Write", "Read", "Close", "ServeHTTP", "Is":
		return fn.Recv != nil
	}
	return false
}

func exportedReceiver(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	typ := fn.Recv.List[0].Type
	if s, ok := typ.(*ast.StarExpr); ok {
		typ = s.X
	}
	if i, ok := typ.(*ast.IndexExpr); ok {
		typ = i.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}
