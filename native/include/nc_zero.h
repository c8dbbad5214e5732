/* Whether a block is all zeros: what is sent as a hole instead of as bytes. */
#ifndef NC_ZERO_H
#define NC_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Stops within 256 bytes of the first that is not; any alignment, any size (0: true). */
bool nc_is_zero(const uint8_t *data, size_t size);

/* The portable kernel, for tests to hold the other against. */
bool nc_is_zero_portable(const uint8_t *data, size_t size);

#endif
