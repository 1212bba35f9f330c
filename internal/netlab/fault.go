package netlab

type faults struct{}

func (f *faults) init() {}
func (f *faults) stop() {}
