// A stage in as many versions as a test wants: one letter of its data says what
// it does with each record, and a test writes another one into the module.
//
//   p  emits it as it is                  x  emits it twice
//   r  rounds "amount" to two places      n  leaves out the member "note"
//   k  gives it the key "new"             s  never returns
//   f  fails with code 7, t  traps, d  drops, l  retries later: each hundredth
//      record, and emits the others as they are

#include "../common/frame.h"

static const volatile char behaviour[] = "behaviour: p";

static inline int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static uint8_t *copy(uint8_t *out, const uint8_t *from, const uint8_t *end) {
	__builtin_memcpy(out, from, end - from);
	return out + (end - from);
}

// find returns where a text begins, or end.
static const uint8_t *find(const uint8_t *p, const uint8_t *end, const char *text, uint32_t n) {
	for (; p + n <= end; p++) {
		if (__builtin_memcmp(p, text, n) == 0) {
			return p;
		}
	}
	return end;
}

int memcmp(const void *a, const void *b, size_t n) {
	const uint8_t *x = a, *y = b;
	for (size_t i = 0; i < n; i++) {
		if (x[i] != y[i]) {
			return x[i] - y[i];
		}
	}
	return 0;
}

// rounded copies a value in which an amount with three places has two.
static uint8_t *rounded(uint8_t *out, const uint8_t *value, const uint8_t *end) {
	const uint8_t *number = find(value, end, "\"amount\":", 9);
	if (number == end) {
		return copy(out, value, end);
	}
	number += 9;
	const uint8_t *p = number;
	uint64_t n = 0;
	uint32_t places = 0, point = 0;
	for (; p < end && (is_digit(*p) || (*p == '.' && !point)); p++) {
		if (*p == '.') {
			point = 1;
			continue;
		}
		n = 10 * n + (*p - '0');
		places += point;
	}
	if (places != 3) {
		return copy(out, value, end);
	}
	out = copy(out, value, number);
	n = (n + 5) / 10;
	uint8_t digits[24], *d = digits + sizeof digits;
	for (uint32_t i = 0; i < 3 || n > 0; i++) {
		if (i == 2) {
			*--d = '.';
		}
		*--d = '0' + n % 10;
		n /= 10;
	}
	out = copy(out, d, digits + sizeof digits);
	return copy(out, p, end);
}

// without copies a value without the member "note", which must not be the
// first and must be a string without escapes.
static uint8_t *without(uint8_t *out, const uint8_t *value, const uint8_t *end) {
	const uint8_t *note = find(value, end, ",\"note\":\"", 9);
	out = copy(out, value, note);
	if (note == end) {
		return out;
	}
	const uint8_t *close = find(note + 9, end, "\"", 1);
	return close == end ? out : copy(out, close + 1, end);
}

EXPORT("stage_batch") uint64_t stage_batch(const struct batch *request, uint32_t length) {
	(void)length;
	const char what = behaviour[sizeof behaviour - 2];
	uint8_t *out = begin(request);
	// Two answers are no longer than two records and a key.
	if (!out || request->kind != REQUEST || !room(out, 2 * (size_t)request->length + 64 * (size_t)request->count)) {
		return 0;
	}
	const struct record *r = first_of(request);
	for (uint32_t n = request->count; n > 0; n--, r = next_of(r)) {
		const uint8_t *value = value_of(r), *end = value + r->value_length;
		uint8_t *to = out + sizeof(struct record);
		enum outcome outcome = EMIT;
		uint8_t same = SAME_KEY | SAME_HEADERS | SAME_TIMESTAMP;
		uint32_t code = 0;
		int hundredth = r->offset % 100 == 7;
		while (behaviour[sizeof behaviour - 2] == 's') {
		}
		if (hundredth && what == 't') {
			__builtin_trap();
		}
		if (hundredth && (what == 'f' || what == 'd' || what == 'l')) {
			outcome = what == 'f' ? FAIL : what == 'd' ? DROP : RETRY;
			code = what == 'f' ? 7 : 0;
			if (what == 'f') {
				to = copy(to, (const uint8_t *)"not today", (const uint8_t *)"not today" + 9);
			}
			same = 0;
		} else if (what == 'r') {
			to = rounded(to, value, end);
		} else if (what == 'n') {
			to = without(to, value, end);
		} else if (what == 'k') {
			to = copy(copy(to, (const uint8_t *)"new", (const uint8_t *)"new" + 3), value, end);
			same &= ~SAME_KEY;
		} else {
			to = copy(to, value, end);
		}
		uint8_t *next = answer(out, to, r, outcome, same, code);
		if (what == 'k') {
			((struct record *)out)->key_length = 3;
			((struct record *)out)->value_length -= 3;
		}
		if (what == 'x') {
			next = answer(next, copy(next + sizeof(struct record), value, end), r, outcome, same, code);
		}
		out = next;
	}
	return finish(out);
}
