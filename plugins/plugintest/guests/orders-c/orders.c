// The order stage as a stage/1 plugin in C, without a libc and without imports.

#include "../common/frame.h"
#include "../common/order.h"

EXPORT("stage_batch") uint64_t stage_batch(const struct batch *request, uint32_t length) {
	(void)length;
	uint8_t *out = begin(request);
	if (!out || request->kind != REQUEST) {
		return 0;
	}
	const struct record *r = first_of(request);
	for (uint32_t n = request->count; n > 0; n--, r = next_of(r)) {
		if (!room(out, sizeof(struct record) + ORDER_ROOM(r->value_length))) {
			return 0;
		}
		struct fault fault;
		uint8_t *end = out + sizeof(struct record);
		switch (order(&end, value_of(r), r->value_length, &fault)) {
		case PASS:
			out = answer(out, end, r, EMIT, SAME_KEY | SAME_HEADERS | SAME_TIMESTAMP, 0);
			break;
		case SKIP:
			out = answer(out, end, r, DROP, 0, 0);
			break;
		case REJECT:
			out = answer(out, fault_text(end, &fault), r, FAIL, 0, fault.code);
			break;
		}
	}
	return finish(out);
}
