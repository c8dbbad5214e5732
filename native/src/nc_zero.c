#include "nc_zero.h"

#include <string.h>

/* Enough to see at once that most memory is something else. */
#define LOOK_BYTES 64

bool nc_is_zero(const uint8_t *data, size_t size)
{
    size_t look = size < LOOK_BYTES ? size : LOOK_BYTES;
    uint8_t any = 0;

    for (size_t i = 0; i < look; i++)
        any |= data[i];
    if (any != 0)
        return false;
    /* What equals itself one place further on is all the same: and the C library compares with the
     * widest instructions that this machine has. */
    return size <= look || memcmp(data, data + look, size - look) == 0;
}
