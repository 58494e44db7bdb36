// The order stage as an Extism plugin: function order, one value a call.

#include "../common/order.h"

#define KERNEL(name) __attribute__((import_module("extism:host/env"), import_name(name)))

KERNEL("input_length") uint64_t input_length(void);
KERNEL("input_load_u8") uint32_t input_load_u8(uint64_t at);
KERNEL("input_load_u64") uint64_t input_load_u64(uint64_t at);
KERNEL("alloc") uint64_t alloc(uint64_t n);
KERNEL("store_u8") void store_u8(uint64_t at, uint32_t byte);
KERNEL("store_u64") void store_u64(uint64_t at, uint64_t word);
KERNEL("output_set") void output_set(uint64_t at, uint64_t n);
KERNEL("error_set") void error_set(uint64_t at);

enum { LIMIT = 128 << 10 };

static uint8_t in[LIMIT + 8], result[ORDER_ROOM(LIMIT)];

// block puts n bytes into a block of the kernel's.
static uint64_t block(const uint8_t *p, size_t n) {
	uint64_t at = alloc(n);
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		store_u64(at + i, word_at(p + i));
	}
	for (; i < n; i++) {
		store_u8(at + i, p[i]);
	}
	return at;
}

static int32_t failed(const struct fault *fault) {
	uint8_t text[128];
	error_set(block(text, fault_text(text, fault) - text));
	return 1;
}

__attribute__((export_name("order"))) int32_t order_event(void) {
	size_t n = input_length();
	if (n > LIMIT) {
		return failed(&(struct fault){4, "an event of more than 128 KiB", LIMIT});
	}
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		*(word *)(in + i) = input_load_u64(i);
	}
	for (; i < n; i++) {
		in[i] = input_load_u8(i);
	}
	struct fault fault;
	uint8_t *end = result;
	switch (order(&end, in, n, &fault)) {
	case PASS:
		output_set(block(result, end - result), end - result);
		return 0;
	case SKIP:
		return 0;
	case REJECT:
		return failed(&fault);
	}
	return 0;
}
