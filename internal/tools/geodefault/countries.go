package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// continents says on which one a country lies; the lists follow the common
// reading of databases (Cyprus EU, Turkey and the Caucasus AS, Timor-Leste OC).
const continents = `
AF AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TG TN TZ UG YT ZA ZM ZW
AN AQ BV GS HM TF
AS AE AF AM AZ BD BH BN BT CC CN CX GE HK ID IL IN IO IQ IR JO JP KG KH KP KR KW KZ LA LB LK MM MN MO MV MY NP OM PH PK PS QA SA SG SY TH TJ TM TR TW UZ VN YE
EU AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK
NA AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX NI PA PM PR SV SX TC TT US VC VG VI
OC AS AU CK FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TL TO TV UM VU WF WS
SA AR BO BR CL CO EC FK GF GY PE PY SR UY VE
`

// zones names the zone whose city stands for a country where the first row of
// zone.tab, which goes by geography, is not where most people are. Chicago is the
// zone city nearest to the middle of the population of the United States.
const zones = `AU Australia/Sydney
BR America/Sao_Paulo
CA America/Toronto
FM Pacific/Pohnpei
RU Europe/Moscow
UA Europe/Kyiv
US America/Chicago
UZ Asia/Tashkent`

// absent are countries that zone.tab does not list and databases know.
const absent = `BV	-54.42	3.36
HM	-53.1	73.51
XK	42.66	21.17`

// writeCountries writes code, continent, latitude and longitude, a country a line.
func writeCountries(out io.Writer, zoneTab io.Reader) error {
	points, err := readZones(zoneTab)
	if err != nil {
		return err
	}
	for line := range strings.Lines(absent) {
		code, at, _ := strings.Cut(strings.TrimSpace(line), "\t")
		points[code] = at
	}
	on := continentByCountry()
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, "# code, continent, latitude, longitude; made by internal/tools/geodefault from zone.tab (public domain)")
	for _, code := range slices.Sorted(maps.Keys(points)) {
		if on[code] == "" {
			return fmt.Errorf("no continent for %s", code)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", code, on[code], points[code])
	}
	return w.Flush()
}

func continentByCountry() map[string]string {
	on := map[string]string{}
	for line := range strings.Lines(continents) {
		f := strings.Fields(line)
		for i := 1; i < len(f); i++ {
			on[f[i]] = f[0]
		}
	}
	return on
}

// readZones returns the point of each country as "latitude TAB longitude".
func readZones(r io.Reader) (map[string]string, error) {
	wanted := map[string]string{}
	for line := range strings.Lines(zones) {
		code, zone, _ := strings.Cut(strings.TrimSpace(line), " ")
		wanted[code] = zone
	}
	points := map[string]string{}
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Split(s.Text(), "\t")
		if strings.HasPrefix(s.Text(), "#") || len(f) < 3 {
			continue
		}
		_, have := points[f[0]]
		if zone := wanted[f[0]]; zone != f[2] && (zone != "" || have) {
			continue
		}
		at, err := parseISO6709(f[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f[2], err)
		}
		points[f[0]] = at
	}
	for code, zone := range wanted {
		if points[code] == "" {
			return nil, fmt.Errorf("zone %s of %s not found", zone, code)
		}
	}
	return points, nil
}

// parseISO6709 reads ±DDMM±DDDMM or ±DDMMSS±DDDMMSS.
func parseISO6709(s string) (string, error) {
	cut := strings.LastIndexAny(s, "+-")
	if cut < 5 {
		return "", errors.New("bad coordinates " + s)
	}
	lat, err := degrees(s[:cut], 2)
	if err != nil {
		return "", err
	}
	lon, err := degrees(s[cut:], 3)
	return lat + "\t" + lon, err
}

func degrees(s string, digits int) (string, error) {
	parts := []string{s[1 : 1+digits], s[1+digits : 3+digits], s[3+digits:]}
	value := 0.0
	for i, unit := range []float64{1, 60, 3600} {
		if parts[i] == "" {
			continue
		}
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return "", fmt.Errorf("bad coordinates %s: %w", s, err)
		}
		value += float64(n) / unit
	}
	if s[0] == '-' {
		value = -value
	}
	return strconv.FormatFloat(value, 'f', 2, 64), nil
}
