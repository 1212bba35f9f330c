package placement

import "testing"

// TestMinAlgorithm: what releases before would leave out asks for a version that they do
// not run.
func TestMinAlgorithm(t *testing.T) {
	plain := Fleet{Policies: []Policy{{Name: "near", Pick: 2, IgnoreECS: true, AllDown: NoData}}, Sites: []Site{{Name: "ams1", Clusters: []Cluster{{Name: "web"}}}}}
	for _, c := range []struct {
		why    string
		change func(f *Fleet)
	}{
		{"", func(*Fleet) {}},
		{"", func(f *Fleet) { f.Policies[0].AllDown = Refuse }},
		{"rtt", func(f *Fleet) { f.RTT = make([]RTT, 1) }},
		{"cname of cluster ams1/web", func(f *Fleet) { f.Sites[0].Clusters[0].CNAME = "www.example." }},
		{"skip_first of policy near", func(f *Fleet) { f.Policies[0].SkipFirst = 1 }},
		{"answers of policy near", func(f *Fleet) { f.Policies[0].Answers = Answers{Nearest: 1, Random: 1} }},
		{"all_down last_good of policy near", func(f *Fleet) { f.Policies[0].AllDown = LastGood }},
		{"all_down all of policy near", func(f *Fleet) { f.Policies[0].AllDown = All }},
		{"all_down closest of policy near", func(f *Fleet) { f.Policies[0].AllDown = Closest }},
		{"all_down static of policy near", func(f *Fleet) { f.Policies[0].AllDown = Static }},
	} {
		f := Fleet{Policies: []Policy{plain.Policies[0]}, Sites: []Site{{Name: "ams1", Clusters: []Cluster{{Name: "web"}}}}}
		c.change(&f)
		if version, why := f.MinAlgorithm(); why != c.why || version != map[bool]int{true: 1, false: 2}[c.why == ""] {
			t.Errorf("%d for %q, want %q", version, why, c.why)
		}
	}
}

func TestCommonAlgorithm(t *testing.T) {
	node := func(name string, runs ...int) Node { return Node{Name: name, Algorithms: runs} }
	for _, c := range []struct {
		nodes []Node
		want  int
		old   string
	}{
		{nil, Algorithm, ""},
		{[]Node{node("a", 1, 2), node("silent"), node("b", 1, 2)}, 2, ""},
		{[]Node{node("a", 1, 2), node("b", 1)}, 1, "b"},
		{[]Node{node("a", 2, 3), node("b", 1, 2)}, 2, ""},
		{[]Node{node("a", 3), node("b", 1)}, 0, "a"},
	} {
		got, old := CommonAlgorithm(c.nodes)
		if got != c.want || (old == nil) != (c.old == "") || old != nil && old.Name != c.old {
			t.Errorf("%v: %d, held back by %v; want %d, %q", c.nodes, got, old, c.want, c.old)
		}
	}
}
