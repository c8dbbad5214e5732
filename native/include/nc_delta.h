/* The difference of a block from an earlier one: XOR, with the runs of zeros counted.
 *
 * Format: records until `size` bytes are described, each
 *
 *     varint zeros | varint count | count bytes of content XOR base
 *
 * The last record ends after `zeros` where these reach the end. A varint is LEB128: seven bits a
 * byte, lowest first, the top bit set on all but the last byte, and never longer than needed.
 * `zeros` is 0 in the first record alone, `count` never: so one sequence of bytes is one
 * difference, and what follows the last record, or leads past the end, is refused.
 *
 * The encoder looks at words of 8 bytes, from the start of the block: only a word that is equal
 * ends a run of literals (a record costs two bytes, and time), and the equal bytes at both ends of
 * a run are left away. A decoder takes any runs. No magic, no size, no checksum: the frame around
 * it has them.
 */
#ifndef NC_DELTA_H
#define NC_DELTA_H

#include <stddef.h>
#include <stdint.h>

#include "nc_err.h"

/* What a difference is at most longer than what it describes. */
#define NC_DELTA_SPARE 16

/* The size of the difference; 0 where it does not fit in `capacity`, and never else for size > 0.
 * ret_delta overlaps neither of the others. */
size_t nc_delta_encode(const uint8_t *content, const uint8_t *base, size_t size, uint8_t *ret_delta,
                       size_t capacity);
/* Exactly `size` bytes, or INTEGRITY and nothing of ret_content was written. `base` may be
 * ret_content: then only what differs is touched. Else they do not overlap. */
int nc_delta_decode(const uint8_t *delta, size_t delta_size, const uint8_t *base,
                    uint8_t *ret_content, size_t size, struct nc_err *err);

/* The portable kernel, for tests to hold the other against. */
size_t nc_delta_encode_portable(const uint8_t *content, const uint8_t *base, size_t size,
                                uint8_t *ret_delta, size_t capacity);

#endif
