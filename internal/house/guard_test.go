package house

import (
	"go/ast"
	"slices"
	"strings"
	"testing"

	"rhumb/placement"
)

// calls returns, for each function of a package's files, the methods and functions
// which it calls, by their last name; a selector's receiver is kept for "engine".
func calls(p *pkg) map[string][]string {
	out := make(map[string][]string)
	for _, f := range p.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					out[fn.Name.Name] = append(out[fn.Name.Name], calledName(c))
				}
				return true
			})
		}
	}
	return out
}

// calledName is the name of what is called, as engine.Withdraw, guard.Lower or tell.
func calledName(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		switch x := f.X.(type) {
		case *ast.Ident:
			if x.Name == "guard" {
				return "guard." + f.Sel.Name
			}
		case *ast.SelectorExpr:
			if x.Sel.Name == "engine" {
				return "engine." + f.Sel.Name
			}
		}
		return f.Sel.Name
	}
	return ""
}

// TestOnlyTheGuardLowers: from the engine back to the guard there is one way, and no
// cause has another. The callers of each stage are named; a new one is a decision.
func TestOnlyTheGuardLowers(t *testing.T) {
	p := docPackage(t, "bgp")
	all := calls(p)
	callers := func(names ...string) []string {
		var out []string
		for fn, list := range all {
			if slices.ContainsFunc(list, func(c string) bool { return slices.Contains(names, c) }) {
				out = append(out, fn)
			}
		}
		slices.Sort(out)
		return out
	}
	for _, stage := range []struct {
		why     string
		calls   []string
		callers []string
	}{
		{"tell takes a step; repair and audit make the engine hold what it was told, no less", []string{"engine.Withdraw", "engine.SetAttrs", "engine.Announce"}, []string{"audit", "repair", "tell"}},
		{"set takes a step that was permitted; leaveTo is the end of the process", []string{"tell"}, []string{"leaveTo", "set"}},
		{"down by lower, up by raise", []string{"set"}, []string{"lower", "raise"}},
		{"every lowering is judged, and so is every rest in silence", []string{"judge"}, []string{"lower", "wish"}},
		{"the judge is the guard, and the end of the process is told its mind", []string{"guard.Lower"}, []string{"judge", "protest"}},
		{"and on the way up", []string{"guard.Raise"}, []string{"raise"}},
		{"the end of the process is no cause of its own", []string{"leaveTo"}, []string{"leave"}},
		{"nothing else ends it", []string{"leave"}, []string{"Run"}},
	} {
		if got := callers(stage.calls...); !slices.Equal(got, stage.callers) {
			t.Errorf("%v: called by %v, want %v: %s", stage.calls, got, stage.callers, stage.why)
		}
	}
}

// TestNobodyElseHoldsAnEngine: outside of bgp only programs of the lab start one: its
// routers, which announce no prefix of the fleet, and the announcer without a guard
// by which its replays show what a guard is for.
func TestNobodyElseHoldsAnEngine(t *testing.T) {
	for _, p := range load(t) {
		if p.dir == "bgp" {
			continue
		}
		for file, f := range p.files {
			for _, imp := range imports(f) {
				if imp == module+"/bgp/guard" {
					t.Errorf("%s imports the guard; only bgp may", file)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "StartGoBGP") && file != "cmd/rhumb/lab_router.go" && file != "cmd/rhumb/lab_replay_naive.go" {
					t.Errorf("%s starts a BGP engine of its own", file)
				}
				return true
			})
		}
	}
}

// TestRefusalsNameARule: every Refusal of the code names a rule of the one table, and
// every rule of the table is named by some code.
func TestRefusalsNameARule(t *testing.T) {
	named := make(map[string]bool)
	for _, p := range load(t) {
		for file, f := range p.files {
			if file == "placement/rules.go" {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CompositeLit:
					if typeName(n.Type) == "Refusal" && len(n.Elts) > 0 && !hasKey(n, "Rule") {
						t.Errorf("%s: a Refusal without a rule", file)
					}
				case *ast.Ident:
					if strings.HasPrefix(n.Name, "Rule") {
						named[n.Name] = true
					}
				}
				return true
			})
		}
	}
	constants := ruleConstants(t)
	for _, r := range placement.Rules() {
		if r.Name == placement.RuleRemovalCap {
			continue // measurement refuses nobody: it marks a verdict as capped
		}
		if name := constants[string(r.Name)]; !named[name] {
			t.Errorf("rule %s (%s) is in the table, and nothing judges by it", r.Name, name)
		}
	}
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func hasKey(l *ast.CompositeLit, key string) bool {
	return slices.ContainsFunc(l.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		return !ok || typeName(kv.Key) == key
	})
}

// ruleConstants maps the names of rules to those of their constants.
func ruleConstants(t *testing.T) map[string]string {
	out := make(map[string]string)
	ast.Inspect(docPackage(t, "placement").files["placement/rules.go"], func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if s, ok := literal(v.Values[0]); ok {
				out[s] = v.Names[0].Name
			}
		}
		return true
	})
	return out
}
