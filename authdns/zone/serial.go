package zone

// Serial returns the serial of the SOA.
func (z *Zone) Serial() uint32 { return z.SOA().Serial }

// Later tells whether serial a is later than b in the arithmetic of RFC 1982
// section 3.2. Two serials exactly half the circle apart are neither.
func Later(a, b uint32) bool { return int32(a-b) > 0 && a-b != 1<<31 }
