#include "nc_zero.h"

#include <stdlib.h>

#include "check.h"

/* Blocks of their exact size, so that the sanitizer sees a read behind one. */
static void one_bit_anywhere_is_seen_by_both_kernels(void)
{
    for (size_t size = 0; size < 900; size++) {
        size_t start = size % 33;
        uint8_t *block = calloc(1, start + size + (start + size == 0));
        uint8_t *data = block + start;

        if (block == NULL)
            abort();
        memset(block, 1, start);
        CHECK(nc_is_zero(data, size));
        CHECK(nc_is_zero_portable(data, size));
        for (size_t i = 0; i < size; i++) {
            data[i] = (uint8_t)(1 << i % 8);
            CHECK(!nc_is_zero(data, size));
            CHECK(!nc_is_zero_portable(data, size));
            data[i] = 0;
        }
        free(block);
    }
}

int main(void)
{
    one_bit_anywhere_is_seen_by_both_kernels();
    return CHECK_RESULT;
}
