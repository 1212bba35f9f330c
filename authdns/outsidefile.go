package authdns

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// outsideFile is where what others' names had outlives the process, below Config.Crashes:
// a start in the middle of their outage has it, too.
const outsideFile = "aliases.json"

// keep writes what is known, whole.
func (o *outside) keep() {
	if o.file == "" {
		return
	}
	data, err := json.Marshal(o.held())
	if err == nil {
		err = writeWhole(o.file, data)
	}
	if err != nil {
		o.log.Warn("the next process will not know the targets of aliases", "err", err)
	}
}

// recall reads what the process before knew. All of it is due at once.
func (o *outside) recall() {
	if o.file == "" {
		return
	}
	values := make(map[string]*abroad)
	data, err := os.ReadFile(o.file)
	if err == nil {
		err = json.Unmarshal(data, &values)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			o.log.Info("the targets of aliases known before are not taken over", "err", err)
		}
		return
	}
	for name, v := range values {
		if v == nil || o.now().Sub(v.At[0]) > outsideHard && o.now().Sub(v.At[1]) > outsideHard {
			delete(values, name)
		}
	}
	o.values.Store(&values)
}

// writeWhole replaces a file. A successor may write at the same time: each has a file of
// its own until it is renamed.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
