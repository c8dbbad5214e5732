#include "nc_zero.h"

#include <stdlib.h>

#include "check.h"

/* Blocks of their exact size, so that the sanitizer sees a read behind one. */
static void one_byte_anywhere_is_seen(void)
{
    for (size_t size = 0; size < 700; size++) {
        uint8_t *data = calloc(1, size + 1);

        CHECK(data != NULL);
        if (data == NULL)
            return;
        CHECK(nc_is_zero(data + 1, size));
        for (size_t i = 0; i < size; i++) {
            data[1 + i] = 0x80;
            CHECK(!nc_is_zero(data + 1, size));
            data[1 + i] = 0;
        }
        free(data);
    }
}

int main(void)
{
    one_byte_anywhere_is_seen();
    return CHECK_RESULT;
}
