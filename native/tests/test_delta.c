#include "nc_delta.h"

#include <stdlib.h>

#include "check.h"

static uint32_t state = 12345;

static uint32_t next(void)
{
    state = state * 1664525 + 1013904223;
    return state >> 8;
}

/* Blocks of their exact size, so that the sanitizer sees a read or write behind one. */
static void what_is_encoded_is_decoded_also_in_place(void)
{
    for (size_t size = 1; size < 1500; size++) {
        uint8_t *base = malloc(size);
        uint8_t *content = malloc(size);
        uint8_t *decoded = malloc(size);
        uint8_t *delta = malloc(size + NC_DELTA_SPARE);
        uint32_t changes = next() % (uint32_t)(size + 1);
        struct nc_err err;
        size_t delta_size;

        CHECK(base != NULL && content != NULL && decoded != NULL && delta != NULL);
        for (size_t i = 0; i < size; i++)
            base[i] = content[i] = (uint8_t)next();
        for (uint32_t i = 0; i < changes; i++)
            content[next() % size] ^= (uint8_t)next();
        delta_size = nc_delta_encode(content, base, size, delta, size + NC_DELTA_SPARE);
        CHECK(delta_size > 0);
        CHECK(nc_delta_decode(delta, delta_size, base, decoded, size, &err) == NC_ERR_OK);
        CHECK(memcmp(decoded, content, size) == 0);
        CHECK(nc_delta_encode(content, base, size, delta, delta_size) == delta_size);
        CHECK(nc_delta_decode(delta, delta_size, base, base, size, &err) == NC_ERR_OK);
        CHECK(memcmp(base, content, size) == 0);
        CHECK(nc_delta_decode(delta, delta_size - 1, base, base, size, &err) == NC_ERR_INTEGRITY);
        free(base);
        free(content);
        free(decoded);
        free(delta);
    }
}

int main(void)
{
    what_is_encoded_is_decoded_also_in_place();
    return CHECK_RESULT;
}
