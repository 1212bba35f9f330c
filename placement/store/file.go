package store

import (
	"errors"
	"log/slog"
)

func openFile(path string, log *slog.Logger) (kv, error) { return nil, errors.New("store: no file store in this build") }
