#include "nc_cdc.h"

#include <pthread.h>

/* Bytes after which nothing of a byte is left in the hash. */
#define WINDOW 64
#define MIN_AVERAGE 256
#define MAX_MAXIMUM (1u << 30)
/* By how many bits the two halves differ from the average: the paper's NC2. */
#define NORMALIZATION 2

static uint64_t gear[256];
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void prepare(void)
{
    uint64_t state = 0;

    for (size_t i = 0; i < sizeof gear / sizeof gear[0]; i++) {
        uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        gear[i] = z ^ z >> 31;
    }
}

int nc_cdc_check(const struct nc_cdc *cdc, struct nc_err *err)
{
    if (cdc->minimum < WINDOW || cdc->average < MIN_AVERAGE || cdc->minimum > cdc->average ||
        cdc->average > cdc->maximum || cdc->maximum > MAX_MAXIMUM)
        return nc_err_set(err, NC_ERR_INVALID, 0,
                          "blocks of %u to %u bytes, %u on average: what is possible is 64 <= "
                          "minimum <= average <= maximum <= 2^30, and an average from 256",
                          cdc->minimum, cdc->maximum, cdc->average);
    return NC_ERR_OK;
}

/* The first end behind `at` and up to `to`, or 0. *hash goes over the WINDOW bytes before it. */
static size_t find(const uint8_t *data, size_t at, size_t to, uint64_t limit, uint64_t *hash)
{
    uint64_t value = *hash;

    /* That the n highest bits are zero is that it is below 2^(64-n). */
    for (; to - at >= 4; at += 4) {
        uint64_t first = (value << 1) + gear[data[at]];
        uint64_t second = (first << 1) + gear[data[at + 1]];
        uint64_t third = (second << 1) + gear[data[at + 2]];

        if (first < limit)
            return at + 1;
        if (second < limit)
            return at + 2;
        if (third < limit)
            return at + 3;
        value = (third << 1) + gear[data[at + 3]];
        if (value < limit)
            return at + 4;
    }
    for (; at < to; at++) {
        value = (value << 1) + gear[data[at]];
        if (value < limit)
            return at + 1;
    }
    *hash = value;
    return 0;
}

size_t nc_cdc_cut(const struct nc_cdc *cdc, const uint8_t *data, size_t size, bool last)
{
    unsigned int bits = 31 - (unsigned int)__builtin_clz(cdc->average);
    size_t end = size < cdc->maximum ? size : cdc->maximum;
    size_t middle = end < cdc->average ? end : cdc->average;
    uint64_t hash = 0;
    size_t cut;

    (void)pthread_once(&prepared, prepare);
    if (end > cdc->minimum) {
        for (size_t at = cdc->minimum - WINDOW; at < cdc->minimum; at++)
            hash = (hash << 1) + gear[data[at]];
        cut = find(data, cdc->minimum, middle, UINT64_C(1) << (64 - bits - NORMALIZATION), &hash);
        if (cut == 0)
            cut = find(data, middle, end, UINT64_C(1) << (64 - bits + NORMALIZATION), &hash);
        if (cut != 0)
            return cut;
    }
    return end == cdc->maximum || last ? end : 0;
}

size_t nc_cdc_ends(const struct nc_cdc *cdc, const uint8_t *data, size_t size, bool last,
                   size_t *ret_ends, size_t capacity)
{
    size_t count = 0;

    for (size_t at = 0; at < size && count < capacity; count++) {
        size_t cut = nc_cdc_cut(cdc, data + at, size - at, last);

        if (cut == 0)
            break;
        at += cut;
        ret_ends[count] = at;
    }
    return count;
}
