// The order stage in C: one pass over the bytes, the first rule that decides
// wins. What no rule touches is copied in runs. It scans and builds no tree;
// it is not a JSON validator.

#ifndef ORDER_H
#define ORDER_H

#include <stddef.h>
#include <stdint.h>

enum verdict { PASS, SKIP, REJECT };

// A fault is why a record is no order event, and at which of its bytes.
struct fault {
	uint32_t code;
	const char *what;
	uint32_t at;
};

// ORDER_ROOM is how many bytes order may write for a value of n: a masked card
// makes 22 of 9.
#define ORDER_ROOM(n) (3 * (size_t)(n) + 128)

typedef uint64_t __attribute__((may_alias, aligned(1))) word;

static uint64_t word_at(const uint8_t *p) { return *(const word *)p; }

// put appends n bytes, eight at a time: both sides may be touched up to seven
// bytes past their ends.
static inline uint8_t *put(uint8_t *out, const uint8_t *from, size_t n) {
	if (n > 256) {
		__builtin_memcpy(out, from, n);
		return out + n;
	}
	for (size_t i = 0; i < n; i += 8) {
		*(word *)(out + i) = word_at(from + i);
	}
	return out + n;
}

static inline int is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static inline const uint8_t *skip_space(const uint8_t *p, const uint8_t *end) {
	while (p < end && is_space(*p)) {
		p++;
	}
	return p;
}

#define EACH(c) (0x0101010101010101u * (uint8_t)(c))

// zero_bytes has the high bit of the first zero byte of w set, and none below it.
static inline uint64_t zero_bytes(uint64_t w) { return (w - EACH(1)) & ~w & EACH(0x80); }

// scan_string returns the end of the string that opens at p; NULL if it never
// closes. It may read up to seven bytes past end.
static inline const uint8_t *scan_string(const uint8_t *p, const uint8_t *end) {
	p++;
	while (p < end) {
		uint64_t w = word_at(p);
		uint64_t found = zero_bytes(w ^ EACH('"')) | zero_bytes(w ^ EACH('\\'));
		if (!found) {
			p += 8;
			continue;
		}
		p += __builtin_ctzll(found) / 8;
		if (p >= end) {
			return NULL;
		}
		if (*p == '"') {
			return p + 1;
		}
		p += 2;
	}
	return NULL;
}

// scan_value returns the end of the value that begins at p; NULL if the record
// ends inside it. A bare value needs a delimiter behind it: a number at the
// end of the bytes may be a part of one.
static inline const uint8_t *scan_value(const uint8_t *p, const uint8_t *end) {
	if (*p == '"') {
		return scan_string(p, end);
	}
	if (*p != '{' && *p != '[') {
		for (; p < end; p++) {
			if (*p == ',' || *p == '}' || *p == ']' || is_space(*p)) {
				return p;
			}
		}
		return NULL;
	}
	for (size_t depth = 0; p < end; p++) {
		switch (*p) {
		case '"':
			if (!(p = scan_string(p, end))) {
				return NULL;
			}
			p--;
			break;
		case '{':
		case '[':
			depth++;
			break;
		case '}':
		case ']':
			if (--depth == 0) {
				return p + 1;
			}
		}
	}
	return NULL;
}

// number reads the digits as a decimal number; all but digits, '.' and '-' is
// passed over.
static inline double number(const uint8_t *p, const uint8_t *end) {
	double v = 0, scale = 0;
	int negative = 0;
	for (; p < end; p++) {
		if (*p >= '0' && *p <= '9') {
			v = v * 10 + (*p - '0');
			scale *= 10;
		} else if (*p == '.') {
			scale = 1;
		} else if (*p == '-') {
			negative = 1;
		}
	}
	v = scale > 0 ? v / scale : v;
	return negative ? -v : v;
}

static inline int same(const uint8_t *p, size_t n, const char *text, size_t length) {
	if (n != length) {
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		if (p[i] != (uint8_t)text[i]) {
			return 0;
		}
	}
	return 1;
}

#define IS(p, n, text) same(p, n, text, sizeof(text) - 1)

enum field { OTHER, AMOUNT, CARD, CUSTOMER_ID, EMAIL, INTERNAL_NOTE, STATUS };

static inline enum field field_of(const uint8_t *key, size_t n) {
	switch (n) {
	case 4:
		return IS(key, n, "card") ? CARD : OTHER;
	case 5:
		return IS(key, n, "email") ? EMAIL : OTHER;
	case 6:
		return IS(key, n, "status") ? STATUS : IS(key, n, "amount") ? AMOUNT : OTHER;
	case 11:
		return IS(key, n, "customer_id") ? CUSTOMER_ID : OTHER;
	case 13:
		return IS(key, n, "internal_note") ? INTERNAL_NOTE : OTHER;
	}
	return OTHER;
}

#define PUT(text) put(out, (const uint8_t *)text, sizeof(text) - 1)

// order writes what becomes of an order event to *to, which has ORDER_ROOM,
// and moves it behind that. Where it does not pass, *to stays; a rejection
// says why in *fault.
static inline enum verdict order(uint8_t **to, const uint8_t *src, size_t n, struct fault *fault) {
	const uint8_t *p = src, *end = src + n;
	uint8_t *out = *to;
#define REJECTED(c, text, where) (*fault = (struct fault){c, text, (where) - src}, REJECT)
	p = skip_space(p, end);
	if (p >= end || *p != '{') {
		return REJECTED(1, "not a JSON object: no '{'", p);
	}
	p++;
	*out++ = '{';
	const uint8_t *run = p;    // what is untouched since here waits to be copied
	const uint8_t *kept = NULL; // where the last member that stays ends
	for (;;) {
		p = skip_space(p, end);
		if (p >= end) {
			return REJECTED(2, "cut off inside the object", p);
		}
		if (*p == '}') {
			break;
		}
		if (*p == ',') {
			p++;
			continue;
		}
		if (*p != '"') {
			return REJECTED(3, "no key where one should begin", p);
		}
		const uint8_t *key = p, *key_end = scan_string(p, end);
		if (!key_end) {
			return REJECTED(2, "cut off inside a key", end);
		}
		const uint8_t *colon = skip_space(key_end, end);
		if (colon >= end) {
			return REJECTED(2, "cut off behind a key", colon);
		}
		if (*colon != ':') {
			return REJECTED(3, "no ':' behind a key", colon);
		}
		const uint8_t *value = skip_space(colon + 1, end);
		if (value >= end) {
			return REJECTED(2, "cut off before a value", value);
		}
		p = scan_value(value, end);
		if (!p) {
			return REJECTED(2, "cut off inside a value", end);
		}
		if (p == value) {
			return REJECTED(3, "an empty value", p);
		}
		size_t value_n = p - value;
		enum field field = field_of(key + 1, key_end - key - 2);
		if (field == INTERNAL_NOTE) {
			continue;
		}
		if (field == STATUS && IS(value, value_n, "\"cancelled\"")) {
			return SKIP;
		}
		if (field == AMOUNT && number(value, p) < 5) {
			return SKIP;
		}
		if (!kept) {
			run = key;
		} else if (key != kept + 1 || *kept != ',') {
			out = put(out, run, kept - run);
			*out++ = ',';
			run = key;
		}
		kept = p;
		if (field == CUSTOMER_ID) {
			out = put(out, run, key + sizeof("\"customer") - 1 - run);
			run = key_end - 1;
		}
		if (value != key_end + 1) {
			out = put(out, run, key_end - run);
			*out++ = ':';
			run = value;
		}
		if (field == EMAIL) {
			out = put(out, run, value + (value_n < 2 ? value_n : 2) - run);
			out = PUT("***");
			for (run = value; run < p && *run != '@'; run++) {
			}
			run = run < p ? run : p - 1;
		} else if (field == CARD) {
			out = put(out, run, value - run);
			out = PUT("\"************");
			run = value + (value_n > 6 ? value_n - 5 : 1);
		}
	}
	if (kept) {
		out = put(out, run, kept - run);
	}
	*out++ = '}';
	*to = out;
	return PASS;
#undef REJECTED
}

// fault_text appends the message, such as `cut off inside a value at byte 59`.
static inline uint8_t *fault_text(uint8_t *out, const struct fault *fault) {
	for (const char *c = fault->what; *c; c++) {
		*out++ = *c;
	}
	out = PUT(" at byte ");
	uint8_t digits[10];
	int n = 0;
	uint32_t at = fault->at;
	do {
		digits[n++] = '0' + at % 10;
		at /= 10;
	} while (at > 0);
	while (n > 0) {
		*out++ = digits[--n];
	}
	return out;
}

#endif
