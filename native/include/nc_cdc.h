/* Content-defined chunking: where a block ends is said by the bytes before that place, so that what
 * is inserted or removed in a file moves the ends near it and leaves all others.
 *
 * FastCDC (Xia et al., USENIX ATC 2016): a gear hash, shifted by one bit a byte, of which a block
 * ends where the highest bits are zero; two more bits than the average asks for before the average
 * is reached, and two fewer behind it ("normalized chunking", level 2); no block ends before the
 * minimum, and each does at the maximum.
 *
 * Differently from the paper, the hash begins 64 bytes before the minimum, not at it: as each bit
 * is shifted out after 64 bytes, an end then depends on nothing but the 64 bytes before it. The
 * table is entry i = output i of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) begun with 0. All of
 * this, and the three sizes, decides which blocks two nodes have in common: it changes with a
 * version. */
#ifndef NC_CDC_H
#define NC_CDC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nc_err.h"

struct nc_cdc {
    uint32_t minimum; /* bytes */
    uint32_t average;
    uint32_t maximum;
};

/* INVALID unless 64 <= minimum <= average <= maximum, 256 <= average and maximum <= 2^30. */
int nc_cdc_check(const struct nc_cdc *cdc, struct nc_err *err);
/* The length of the block at the start of `data`, up to maximum; 0: more data is needed to say it.
 * `last`: there is none, so that all of it is a block where no end is found. `cdc` was checked. */
size_t nc_cdc_cut(const struct nc_cdc *cdc, const uint8_t *data, size_t size, bool last);
/* The same again and again: where the first blocks of `data` end, up to `capacity` of them. Returns
 * how many; what is behind the last end is not looked at enough, or too little to say. */
size_t nc_cdc_ends(const struct nc_cdc *cdc, const uint8_t *data, size_t size, bool last,
                   size_t *ret_ends, size_t capacity);

#endif
