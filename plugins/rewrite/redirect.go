package rewrite

// redirected is the content of the import section with each function that is
// imported from another module now, as from says; "" leaves one as it is.
func (m *Module) redirected(from func(module, name string) string) []byte {
	b := m.payloadOf(secImport)
	if len(b) == 0 {
		return nil
	}
	at := 0
	number := func() uint32 {
		v, n := uvarint32(b[at:])
		at += n
		return v
	}
	text := func() string {
		n := int(number())
		at += n
		return string(b[at-n : at])
	}
	limits := func() {
		flags := b[at]
		at++
		number()
		if flags&1 != 0 {
			number()
		}
	}
	count := number()
	out := appendUvarint(nil, count)
	for range count {
		module, name := text(), text()
		begin := at
		kind := ExternKind(b[at])
		at++
		switch kind {
		case KindFunc:
			number()
			if other := from(module, name); other != "" {
				module = other
			}
		case KindTable:
			at++
			limits()
		case KindMemory:
			limits()
		case KindGlobal:
			at += 2
		}
		out = append(appendName(appendName(out, module), name), b[begin:at]...)
	}
	return out
}
