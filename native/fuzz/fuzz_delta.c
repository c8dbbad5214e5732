/* libFuzzer target for nc_delta.h: what is refused leaves everything as it was, what is taken is
 * the same in place and elsewhere, and what is encoded is decoded, the same by both kernels.
 *
 * The input is the size of the block (1), the size of a difference (1), the difference, and bytes
 * of which the base is made, and with what is left the content. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc_delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ALWAYS(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Blocks of their exact size, for the sanitizer. */
static uint8_t *block(size_t size)
{
    uint8_t *bytes = calloc(1, size + (size == 0));

    if (bytes == NULL)
        abort();
    return bytes;
}

/* Bytes over and over again until there are `size` of them. */
static uint8_t *filled(size_t size, const uint8_t *bytes, size_t count)
{
    uint8_t *made = block(size);

    for (size_t at = 0; count > 0 && at < size; at += count)
        memcpy(made + at, bytes, size - at < count ? size - at : count);
    return made;
}

static void a_difference_is_judged(const uint8_t *delta, size_t delta_size, const uint8_t *base,
                                   size_t size)
{
    uint8_t *exact = filled(delta_size, delta, delta_size);
    uint8_t *place = filled(size, base, size);
    uint8_t *out = block(size);
    struct nc_err err = {0};
    int code = nc_delta_decode(exact, delta_size, base, out, size, &err);

    ALWAYS(nc_delta_decode(exact, delta_size, place, place, size, NULL) == code);
    if (code == NC_ERR_OK) {
        ALWAYS(memcmp(out, place, size) == 0);
    } else {
        ALWAYS(code == NC_ERR_INTEGRITY && err.code == code && err.reason[0] != '\0');
        ALWAYS(memcmp(place, base, size) == 0);
        ALWAYS(out[0] == 0 && memcmp(out, out + 1, size - 1) == 0);
    }
    free(exact);
    free(place);
    free(out);
}

static void a_round_trip_holds(const uint8_t *content, uint8_t *base, size_t size)
{
    uint8_t *delta = block(size + NC_DELTA_SPARE);
    size_t delta_size = nc_delta_encode(content, base, size, delta, size + NC_DELTA_SPARE);
    uint8_t *other;

    ALWAYS(delta_size > 0 && delta_size <= size + NC_DELTA_SPARE);
    other = block(delta_size);
    ALWAYS(nc_delta_encode_portable(content, base, size, other, delta_size) == delta_size);
    ALWAYS(memcmp(delta, other, delta_size) == 0);
    ALWAYS(nc_delta_encode(content, base, size, other, delta_size - 1) == 0);
    ALWAYS(nc_delta_decode(delta, delta_size, base, base, size, NULL) == NC_ERR_OK);
    ALWAYS(memcmp(base, content, size) == 0);
    free(other);
    free(delta);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t block_size;
    size_t delta_size;
    size_t half;
    uint8_t *base;
    uint8_t *content;

    if (size < 2)
        return 0;
    /* Also more than a group of words, of 512 bytes. */
    block_size = 1 + (size_t)data[0] * 5 / 2;
    delta_size = data[1] < size - 2 ? data[1] : size - 2;
    half = (size - 2 - delta_size) / 2;
    base = filled(block_size, data + 2 + delta_size, half);
    content = filled(block_size, data + 2 + delta_size + half, half);
    /* Mostly like the base: content that differs everywhere is one run. */
    for (size_t i = 0; i < block_size; i++)
        content[i] = content[i] & 1 ? content[i] : base[i];
    a_difference_is_judged(data + 2, delta_size, base, block_size);
    a_round_trip_holds(content, base, block_size);
    free(base);
    free(content);
    return 0;
}
