/* Whether a block is all zeros: what is sent as a hole instead of as bytes. */
#ifndef NC_ZERO_H
#define NC_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Stops at the first block of 256 bytes that is not; any alignment, any size (0: true). */
bool nc_is_zero(const uint8_t *data, size_t size);

#endif
