//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"

	"rhumb/internal/api"
	"rhumb/placement"
)

// listOf reads what a command prints as JSON.
func listOf[T any](l *lab, args ...string) ([]T, error) {
	r := l.run(append(args, "-o", "json")...)
	if r.code != 0 {
		return nil, fmt.Errorf("%s", r)
	}
	var list api.List[T]
	err := json.Unmarshal([]byte(r.out), &list)
	return list.Items, err
}

// checksSeen awaits that every site looks at its clusters, and that all is well.
func (l *lab) checksSeen() {
	l.t.Helper()
	l.await(patience, "every site looks at its clusters", func() error {
		rows, err := listOf[api.Check](l, "checks")
		if err != nil {
			return err
		}
		seen := make(map[string]int)
		for _, c := range rows {
			if c.State != placement.Up || c.Result != "ok" || c.TookMS <= 0 {
				return fmt.Errorf("%s sees %s at %s %s: %s %s", c.Vantage, c.Cluster, c.Address, c.State, c.Result, c.Cause)
			}
			seen[c.Cluster.Site]++
		}
		for _, s := range sites() {
			if seen[s] == 0 {
				return fmt.Errorf("no look at %s among %d", s, len(rows))
			}
		}
		return nil
	})
}

// figuresTell awaits that another site counts a dead one as failing, and no service.
func (l *lab) figuresTell(dead string) {
	l.t.Helper()
	l.await(patience, "the figures tell that "+dead+" fails and its services do not", func() error {
		rows, err := listOf[api.Figure](l, "availability")
		if err != nil {
			return err
		}
		failing := false
		for _, f := range rows {
			if f.Site == dead {
				continue
			}
			if f.Figure == placement.ServiceFigure && f.Failing {
				return fmt.Errorf("service %s fails as %s sees it", f.Name, f.Vantage)
			}
			failing = failing || f.Figure == placement.SiteFigure && f.Name == dead && f.Failing && f.Failed > 0
		}
		if !failing {
			return fmt.Errorf("nobody sees it fail: %d figures", len(rows))
		}
		return nil
	})
}
