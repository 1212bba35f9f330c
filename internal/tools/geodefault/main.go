// Command geodefault makes the two files that placement/geo embeds.
//
//	geodefault countries /usr/share/zoneinfo/zone.tab > countries.tsv
//	geodefault table -name … -licence … -attribution … FILE.mmdb > default.bin.gz
//
// The second uses the countries that placement/geo has embedded, so it runs after
// the first. placement/geo/SOURCES.md holds the exact commands.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"os"

	"rhumb/placement/geo"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:], os.Stdout); err != nil {
		log.Fatal("geodefault: ", err)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) >= 2 && args[0] == "countries" {
		f, err := os.Open(args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		return writeCountries(out, f)
	}
	if len(args) >= 2 && args[0] == "table" {
		return writeTable(out, args[1:])
	}
	return fmt.Errorf("usage: geodefault countries ZONE.TAB | table FLAGS FILE…")
}

// writeTable compiles databases as the product would, trims the result and stores
// it under the given name and terms.
func writeTable(out io.Writer, args []string) error {
	flags := flag.NewFlagSet("table", flag.ContinueOnError)
	name := flags.String("name", "", "data set, with version")
	licence := flags.String("licence", "", "SPDX identifier")
	attribution := flags.String("attribution", "", "line the licence wants shown")
	if err := flags.Parse(args); err != nil {
		return err
	}
	full, err := geo.Open(flags.Args())
	if err != nil {
		return err
	}
	info := geo.Info{Name: *name, Licence: *licence, Attribution: *attribution, BuildTime: full.Info().BuildTime}
	t, err := geo.Compile(info, trim(full))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	if err := t.Encode(w); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d prefixes, %d classes, digest %s\n", t.Len(), len(t.Locations()), t.Digest())
	return w.Flush()
}
