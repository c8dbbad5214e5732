/* Whether memory is nothing but zeros. */
#ifndef NC_ZERO_H
#define NC_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool nc_is_zero(const uint8_t *data, size_t size);

#endif
