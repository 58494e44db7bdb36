// The stage/1 frame for C guests without a libc: what a guest reads of a
// request, and how it writes its answers. The request lies where the linker's
// data ends, the result behind it; the memory grows at its end, so nothing is
// ever moved.

#ifndef FRAME_H
#define FRAME_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

enum { REQUEST = 1, RESULT = 2 };
enum outcome { EMIT, DROP, RETRY, FAIL };
enum { SAME_KEY = 1, SAME_VALUE = 2, SAME_HEADERS = 4, SAME_TIMESTAMP = 8 };

struct batch {
	uint32_t length;
	uint16_t version, kind;
	uint32_t count, topics_length;
	uint64_t id;
	int64_t now;
};

struct record {
	uint32_t length, id;
	uint8_t outcome, same;
	uint16_t flags, topic, headers;
	int64_t offset, timestamp;
	int32_t partition;
	uint32_t code, key_length, value_length, headers_length, reserved;
	uint8_t trace[16];
};

_Static_assert(sizeof(struct batch) == 32, "batch header");
_Static_assert(sizeof(struct record) == 72, "record header");

// Copies may read and write up to SLACK bytes past their ends.
enum { SLACK = 16, PAGE = 1 << 16 };

extern unsigned char __heap_base;

static uint32_t request_room; // bytes between the heap's base and the result

static uint8_t *request_at(void) { return (uint8_t *)(((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7); }

static uint8_t *result_at(void) { return request_at() + request_room; }

// room makes the memory reach to n bytes after p; 0: it cannot.
static inline int room(const uint8_t *p, size_t n) {
	size_t have = __builtin_wasm_memory_size(0), need = ((uintptr_t)p + n + SLACK + PAGE - 1) / PAGE;
	return need <= have || __builtin_wasm_memory_grow(0, need - have) != (size_t)-1;
}

EXPORT("stage_abi_1") void stage_abi_1(void) {}

EXPORT("stage_alloc") uint8_t *stage_alloc(uint32_t size) {
	uint32_t n = (size + SLACK + 7) & ~(uint32_t)7;
	if (n < size || !room(request_at(), n)) {
		return NULL;
	}
	request_room = n > request_room ? n : request_room;
	return request_at();
}

// begin writes the result's header; NULL: there is no memory for it.
static inline uint8_t *begin(const struct batch *request) {
	uint8_t *out = result_at();
	if (!room(out, sizeof(struct batch))) {
		return NULL;
	}
	*(struct batch *)out = (struct batch){.version = 1, .kind = RESULT, .count = request->count, .id = request->id, .now = request->now};
	return out + sizeof(struct batch);
}

// first_of is the first record of a request.
static inline const struct record *first_of(const struct batch *request) {
	return (const struct record *)((const uint8_t *)(request + 1) + request->topics_length);
}

static inline const struct record *next_of(const struct record *r) {
	return (const struct record *)((const uint8_t *)r + r->length);
}

static inline const uint8_t *value_of(const struct record *r) {
	return (const uint8_t *)(r + 1) + r->headers_length + r->key_length;
}

// answer completes the answer at `at`, whose value ends at `end`, and returns
// where the next one begins.
static inline uint8_t *answer(uint8_t *at, uint8_t *end, const struct record *r, enum outcome outcome, uint8_t same, uint32_t code) {
	*(uint64_t *)end = 0; // the padding
	uint8_t *next = (uint8_t *)(((uintptr_t)end + 7) & ~(uintptr_t)7);
	*(struct record *)at = (struct record){
		.length = next - at, .id = r->id, .outcome = outcome, .same = same, .partition = -1, .code = code,
		.value_length = end - at - sizeof(struct record),
	};
	return next;
}

// finish completes the result that ends at `end`.
static inline uint64_t finish(uint8_t *end) {
	uint8_t *out = result_at();
	((struct batch *)out)->length = end - out;
	return (uint64_t)(uintptr_t)out << 32 | (uint32_t)(end - out);
}

#endif
