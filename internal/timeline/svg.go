package timeline

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The measures of the picture, in pixels.
const (
	labelWide = 230
	plotWide  = 900
	laneTall  = 22
	areaTall  = 90
	lineTall  = 17
	margin    = 16
)

// colours are given out in this order. The first eight are told apart by the
// colour-blind too (Okabe and Ito); red is kept for what is bad.
func colours() []string {
	return []string{"#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#f0e442", "#0072b2", "#999999", "#7f6fb0",
		"#a6d854", "#8c564b", "#bcd9ef", "#b8860b", "#66c2a5", "#d4b9da"}
}

const badColour = "#c8102e"

// picture writes an SVG from top to bottom.
type picture struct {
	chart   *Chart
	b       strings.Builder
	y       int
	palette map[string]string
}

// SVG draws the chart as a whole picture: title, lanes, areas, and the list of
// events by the numbers which stand over the lanes.
func (c *Chart) SVG() []byte {
	p := &picture{chart: c, palette: map[string]string{}, y: margin + 18}
	p.text(margin, p.y, 16, "bold", c.Title)
	for _, n := range c.Notes {
		p.y += lineTall
		p.text(margin, p.y, 12, "normal", n)
	}
	p.y += lineTall + 8
	top := p.y
	for _, l := range c.Lanes {
		p.lane(l)
	}
	for _, a := range c.Areas {
		p.area(&a)
	}
	p.axis()
	p.events(top)
	p.legend()
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" role="img">`+"\n",
		labelWide+plotWide+3*margin, p.y+margin)
	back := `<rect width="100%" height="100%" fill="#ffffff"/>` + "\n"
	return []byte(head + "<title>" + escape(c.Title) + "</title>\n" + back + p.b.String() + "</svg>\n")
}

func escape(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}

func (p *picture) text(x, y, size int, weight, s string) {
	fmt.Fprintf(&p.b, `<text x="%d" y="%d" font-size="%d" font-weight="%s">%s</text>`+"\n", x, y, size, weight, escape(s))
}

// x is where a moment lies.
func (p *picture) x(at time.Time) float64 {
	part := float64(at.Sub(p.chart.Began)) / float64(p.chart.span())
	return margin + labelWide + plotWide*min(max(part, 0), 1)
}

// colour gives a state the same colour in every lane.
func (p *picture) colour(state string) string {
	if slices.Contains(p.chart.Bad, state) {
		return badColour
	}
	if c, ok := p.palette[state]; ok {
		return c
	}
	all := colours()
	c := all[len(p.palette)%len(all)]
	p.palette[state] = c
	return c
}

// lane draws a row of boxes, each with its state where there is room for it.
func (p *picture) lane(l Lane) {
	p.text(margin, p.y+15, 12, "normal", l.Name)
	for i, m := range l.Marks {
		end := p.chart.Ended
		if i+1 < len(l.Marks) {
			end = l.Marks[i+1].At
		}
		from, to := p.x(m.At), p.x(end)
		fmt.Fprintf(&p.b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s from %.2f s to %.2f s</title></rect>`+"\n",
			from, p.y+1, max(to-from, 1), laneTall-3, p.colour(m.Text), escape(m.Text),
			m.At.Sub(p.chart.Began).Seconds(), end.Sub(p.chart.Began).Seconds())
		if to-from > float64(7*len([]rune(m.Text))+8) {
			fill := "#000000"
			if p.colour(m.Text) == badColour {
				fill = "#ffffff"
			}
			fmt.Fprintf(&p.b, `<text x="%.1f" y="%d" font-size="11" fill="%s">%s</text>`+"\n", from+4, p.y+15, fill, escape(m.Text))
		}
	}
	p.y += laneTall
}

// area draws the shares on top of each other.
func (p *picture) area(a *Area) {
	p.text(margin, p.y+15, 12, "normal", a.Name)
	for i := range a.Counts {
		from := p.x(p.chart.Began.Add(time.Duration(i) * a.Step))
		to := p.x(p.chart.Began.Add(time.Duration(i+1) * a.Step))
		below := 0.0
		for k, key := range a.Keys {
			part, ok := a.Share(i, k)
			if !ok || part == 0 {
				continue
			}
			tall := part * (areaTall - 6)
			fmt.Fprintf(&p.b, `<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="%s"><title>%s %.0f %%</title></rect>`+"\n",
				from, float64(p.y+areaTall-3)-below-tall, to-from+0.2, tall, p.colour(key), escape(key), 100*part)
			below += tall
		}
	}
	p.y += areaTall
}

// axis draws the seconds below.
func (p *picture) axis() {
	p.y += 4
	for k := range 11 {
		at := p.chart.Began.Add(p.chart.span() * time.Duration(k) / 10)
		fmt.Fprintf(&p.b, `<text x="%.1f" y="%d" font-size="11" text-anchor="middle">%.1f s</text>`+"\n", p.x(at), p.y+12, at.Sub(p.chart.Began).Seconds())
	}
	p.y += lineTall + 4
}

// events draws a line for each over everything above, and lists them.
func (p *picture) events(top int) {
	bottom := p.y - lineTall - 4
	for i, e := range p.chart.Events {
		x := p.x(e.At)
		fmt.Fprintf(&p.b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#000000" stroke-dasharray="3 3" stroke-width="1"/>`+"\n", x, x, top, bottom)
		fmt.Fprintf(&p.b, `<text x="%.1f" y="%d" font-size="10" text-anchor="middle">%d</text>`+"\n", x, top-2-9*(i%2), i+1)
	}
	for i, e := range p.chart.Events {
		p.y += lineTall
		p.text(margin, p.y, 12, "normal", fmt.Sprintf("%d   %.2f s   %s", i+1, e.At.Sub(p.chart.Began).Seconds(), e.Text))
	}
	p.y += lineTall
}

// legend names the colours, in the order in which they were given out.
func (p *picture) legend() {
	x := margin
	p.y += 6
	for _, c := range colours() {
		for _, state := range statesOf(p.palette, c) {
			if x > labelWide+plotWide-120 {
				x, p.y = margin, p.y+lineTall
			}
			fmt.Fprintf(&p.b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/>`+"\n", x, p.y, c)
			p.text(x+16, p.y+11, 11, "normal", state)
			x += 30 + 7*len([]rune(state))
		}
	}
	p.y += lineTall
}

// statesOf lists the states which share a colour.
func statesOf(palette map[string]string, colour string) []string {
	var out []string
	for state, c := range palette {
		if c == colour {
			out = append(out, state)
		}
	}
	slices.Sort(out)
	return out
}
