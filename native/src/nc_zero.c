#include "nc_zero.h"

#include <string.h>

static uint64_t load(const uint8_t *data)
{
    uint64_t word;

    memcpy(&word, data, sizeof word);
    return word;
}

bool nc_is_zero(const uint8_t *data, size_t size)
{
    uint64_t seen = 0;

    for (; size >= 64; data += 64, size -= 64) {
        seen = load(data) | load(data + 8) | load(data + 16) | load(data + 24) | load(data + 32) |
               load(data + 40) | load(data + 48) | load(data + 56);
        if (seen != 0)
            return false;
    }
    for (; size >= 8; data += 8, size -= 8)
        seen |= load(data);
    for (; size > 0; data++, size--)
        seen |= *data;
    return seen == 0;
}
