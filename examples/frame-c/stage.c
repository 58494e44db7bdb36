// A stage in C without a kit, a libc or imports: fixed-width lines of a bank
// statement become JSON, keyed by account. README.md goes through it step by
// step; docs/reference/abi.md is the ABI.

#include <stddef.h>
#include <stdint.h>

// ---- 1. The frame, as the ABI has it. Little endian, as Wasm is. ----

enum { VERSION = 1, REQUEST = 1, RESULT = 2 };
enum outcome { EMIT, DROP, RETRY, FAIL };
enum { SAME_KEY = 1, SAME_VALUE = 2, SAME_HEADERS = 4, SAME_TIMESTAMP = 8 };
enum { KEY_NULL = 1, VALUE_NULL = 2 };
enum { BY_KEY = -1 };

struct batch {
	uint32_t length;         // of the whole frame
	uint16_t version, kind;
	uint32_t count;          // of the records that follow
	uint32_t topics_length;  // bytes of the topic table behind this header
	uint64_t id;
	int64_t now;             // Unix ms: the only clock
};

struct record {
	uint32_t length;         // of the whole record: the next one begins behind it
	uint32_t id;             // its number in the batch
	uint8_t outcome, same;   // of an answer
	uint16_t flags;
	uint16_t topic;          // of an answer: the output, 0 the default one
	uint16_t headers;
	int64_t offset;          // of a retry: the delay in ms
	int64_t timestamp;
	int32_t partition;       // of an answer: BY_KEY, or where to
	uint32_t attempt;        // of a retry or fail: the code
	uint32_t key_length, value_length, headers_length;
	uint32_t reserved;
	uint8_t trace[16];
	// then headers, key, value, and zeros up to a multiple of 8
};

_Static_assert(sizeof(struct batch) == 32, "batch header");
_Static_assert(offsetof(struct batch, id) == 16, "batch header");
_Static_assert(sizeof(struct record) == 72, "record header");
_Static_assert(offsetof(struct record, flags) == 10, "record header");
_Static_assert(offsetof(struct record, offset) == 16, "record header");
_Static_assert(offsetof(struct record, partition) == 32, "record header");
_Static_assert(offsetof(struct record, headers_length) == 48, "record header");
_Static_assert(offsetof(struct record, trace) == 56, "record header");

// ---- 2. Memory: the request behind the linker's data, the result behind it.
// It grows at its end, so nothing is ever moved. ----

#define EXPORT(name) __attribute__((export_name(name)))

enum { PAGE = 1 << 16 };

extern uint8_t __heap_base; // made by the linker

static uint32_t request_room; // bytes that the request may take

static uint8_t *align8(uint8_t *p) { return (uint8_t *)(((uintptr_t)p + 7) & ~(uintptr_t)7); }

static uint8_t *request_at(void) { return align8(&__heap_base); }

static uint8_t *result_at(void) { return request_at() + request_room; }

// reach makes the memory reach to n bytes behind p; 0: the host gives no more.
static int reach(const uint8_t *p, uint32_t n) {
	uint64_t pages = ((uint64_t)(uintptr_t)p + n + PAGE - 1) / PAGE;
	uint64_t have = __builtin_wasm_memory_size(0);
	return pages <= have || __builtin_wasm_memory_grow(0, pages - have) != (size_t)-1;
}

EXPORT("stage_abi_1") void stage_abi_1(void) {}

EXPORT("stage_alloc") uint8_t *stage_alloc(uint32_t size) {
	if (size > UINT32_MAX - 7 || !reach(request_at(), size + 7)) {
		return NULL;
	}
	uint32_t room = (size + 7) & ~(uint32_t)7;
	request_room = room > request_room ? room : request_room;
	return request_at();
}

// ---- 3. The task. A line has 64 characters. ----

enum { LINE = 64, DATE = 1, ACCOUNT = 9, AMOUNT = 19, CURRENCY = 31, TEXT = 34, ACCOUNT_LENGTH = 10 };

// Escapes make at most two characters of one, the names take less than 100.
enum { ANSWER = sizeof(struct record) + ACCOUNT_LENGTH + 2 * LINE + 100 };

enum { WRONG_LENGTH = 1, WRONG_KIND, WRONG_DATE, WRONG_ACCOUNT, WRONG_AMOUNT, WRONG_CURRENCY, WRONG_TEXT };

static uint8_t *put(uint8_t *to, const char *text) {
	while (*text) {
		*to++ = *text++;
	}
	return to;
}

static uint8_t *copy(uint8_t *to, const uint8_t *from, uint32_t n) {
	__builtin_memcpy(to, from, n);
	return to + n;
}

static int are_digits(const uint8_t *p, uint32_t n) {
	for (uint32_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9') {
			return 0;
		}
	}
	return 1;
}

static int two(const uint8_t *p) { return 10 * (p[0] - '0') + p[1] - '0'; }

// check is the code of what is wrong with a line of kind D, 0: nothing.
static uint32_t check(const uint8_t *line) {
	const uint8_t *date = line + DATE;
	if (!are_digits(date, 8) || two(date + 4) < 1 || two(date + 4) > 12 || two(date + 6) < 1 || two(date + 6) > 31) {
		return WRONG_DATE;
	}
	if (!are_digits(line + ACCOUNT, ACCOUNT_LENGTH)) {
		return WRONG_ACCOUNT;
	}
	if ((line[AMOUNT] != '+' && line[AMOUNT] != '-') || !are_digits(line + AMOUNT + 1, 11)) {
		return WRONG_AMOUNT;
	}
	for (int i = CURRENCY; i < TEXT; i++) {
		if (line[i] < 'A' || line[i] > 'Z') {
			return WRONG_CURRENCY;
		}
	}
	for (int i = TEXT; i < LINE; i++) {
		if (line[i] < ' ' || line[i] > '~') {
			return WRONG_TEXT;
		}
	}
	return 0;
}

static const char *reason(uint32_t code) {
	switch (code) {
	case WRONG_LENGTH:
		return "the line does not have 64 characters";
	case WRONG_KIND:
		return "character 1 is none of D, H and T";
	case WRONG_DATE:
		return "characters 2 to 9 are no date YYYYMMDD";
	case WRONG_ACCOUNT:
		return "characters 10 to 19 are no account of ten digits";
	case WRONG_AMOUNT:
		return "characters 20 to 31 are no amount: a sign and eleven digits";
	case WRONG_CURRENCY:
		return "characters 32 to 34 are no currency";
	}
	return "characters 35 to 64 are not all printable ASCII";
}

// json appends the object that a line becomes.
static uint8_t *json(uint8_t *to, const uint8_t *line) {
	to = put(to, "{\"date\":\"");
	to = copy(to, line + DATE, 4);
	*to++ = '-';
	to = copy(to, line + DATE + 4, 2);
	*to++ = '-';
	to = copy(to, line + DATE + 6, 2);
	to = put(to, "\",\"account\":\"");
	to = copy(to, line + ACCOUNT, ACCOUNT_LENGTH);
	to = put(to, "\",\"amount\":");
	if (line[AMOUNT] == '-') {
		*to++ = '-';
	}
	uint32_t zeros = 0;
	while (zeros < 8 && line[AMOUNT + 1 + zeros] == '0') {
		zeros++;
	}
	to = copy(to, line + AMOUNT + 1 + zeros, 9 - zeros);
	*to++ = '.';
	to = copy(to, line + AMOUNT + 10, 2);
	to = put(to, ",\"currency\":\"");
	to = copy(to, line + CURRENCY, 3);
	to = put(to, "\",\"text\":\"");
	uint32_t end = LINE;
	while (end > TEXT && line[end - 1] == ' ') {
		end--;
	}
	for (uint32_t i = TEXT; i < end; i++) {
		if (line[i] == '"' || line[i] == '\\') {
			*to++ = '\\';
		}
		*to++ = line[i];
	}
	return put(to, "\"}");
}

// ---- 4. One record in, one answer out. ----

// answer completes the answer that begins at `at`: key and value lie behind its
// header already. It returns where the next one begins.
static uint8_t *answer(uint8_t *at, const struct record *r, struct record head) {
	uint8_t *end = at + sizeof(struct record) + head.key_length + head.value_length;
	uint8_t *next = align8(end);
	while (end < next) {
		*end++ = 0;
	}
	head.length = next - at;
	head.id = r->id;
	head.partition = BY_KEY;
	*(struct record *)at = head;
	return next;
}

static uint8_t *fail(uint8_t *at, const struct record *r, uint32_t code) {
	uint8_t *message = at + sizeof(struct record);
	uint32_t length = put(message, reason(code)) - message;
	return answer(at, r, (struct record){.outcome = FAIL, .attempt = code, .value_length = length});
}

static uint8_t *process(uint8_t *at, const struct record *r) {
	const uint8_t *line = (const uint8_t *)(r + 1) + r->headers_length + r->key_length;
	if ((r->flags & VALUE_NULL) || r->value_length != LINE) {
		return fail(at, r, WRONG_LENGTH);
	}
	if (line[0] == 'H' || line[0] == 'T') {
		return answer(at, r, (struct record){.outcome = DROP});
	}
	uint32_t wrong = line[0] == 'D' ? check(line) : WRONG_KIND;
	if (wrong) {
		return fail(at, r, wrong);
	}
	uint8_t *key = at + sizeof(struct record);
	uint8_t *value = copy(key, line + ACCOUNT, ACCOUNT_LENGTH);
	uint8_t *end = json(value, line);
	return answer(at, r, (struct record){
		.outcome = EMIT,
		.same = SAME_HEADERS | SAME_TIMESTAMP,
		.key_length = ACCOUNT_LENGTH,
		.value_length = end - value,
	});
}

// ---- 5. A batch. ----

EXPORT("stage_batch") uint64_t stage_batch(const struct batch *request, uint32_t length) {
	uint8_t *result = result_at();
	if (length < sizeof(struct batch) || request->kind != REQUEST || !reach(result, sizeof(struct batch))) {
		return 0;
	}
	const uint8_t *from = (const uint8_t *)(request + 1) + request->topics_length;
	uint8_t *to = result + sizeof(struct batch);
	for (uint32_t n = 0; n < request->count; n++) {
		const struct record *r = (const struct record *)from;
		if (!reach(to, ANSWER)) {
			return 0;
		}
		to = process(to, r);
		from += r->length;
	}
	*(struct batch *)result = (struct batch){
		.length = to - result, .version = VERSION, .kind = RESULT, .count = request->count, .id = request->id,
	};
	return (uint64_t)(uintptr_t)result << 32 | (uint32_t)(to - result);
}
