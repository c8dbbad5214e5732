/* libFuzzer target for the decoders of nc_codec.h: whatever arrives, exactly what was agreed on
 * comes out or a reason, and the contexts decode the next chunk. The libraries are not
 * instrumented: what is found here is what they do to their callers, and what our checks before
 * them miss.
 *
 * The input is codec and level (1), the agreed size (2), a place and a change (3), and bytes, which
 * are decoded as they are; and are encoded, changed in that place, and decoded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ALWAYS(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define HEAD 6

static struct nc_codec *codec;

/* In blocks of their exact size, for the sanitizer. The caller frees what it gets; NULL: refused.
 */
static uint8_t *decoded(int id, const uint8_t *coded, size_t coded_size, size_t size)
{
    uint8_t *in = malloc(coded_size + (coded_size == 0));
    uint8_t *out = malloc(size);
    struct nc_err err = {0};
    int code;

    if (in == NULL || out == NULL)
        abort();
    if (coded_size > 0)
        memcpy(in, coded, coded_size);
    code = nc_codec_decode(codec, id, in, coded_size, out, size, &err);
    free(in);
    if (code == NC_ERR_OK)
        return out;
    ALWAYS(code == NC_ERR_INTEGRITY && err.code == code);
    ALWAYS(err.reason[0] != '\0' && memchr(err.reason, '\0', sizeof err.reason) != NULL);
    free(out);
    return NULL;
}

static void a_round_trip_holds(int id, int level, const uint8_t *head, const uint8_t *content,
                               size_t size)
{
    size_t capacity = size + size / 255 + 512;
    size_t place = (size_t)head[3] << 8 | head[4];
    uint8_t *coded = malloc(capacity);
    size_t coded_size = 0;
    struct nc_err err;
    uint8_t *out;

    if (coded == NULL)
        abort();
    ALWAYS(nc_codec_encode(codec, id, level, content, size, coded, capacity, &coded_size, &err) ==
           NC_ERR_OK);
    ALWAYS(coded_size > 0 && coded_size <= capacity);
    /* First what is wrong: it may not be in the way of what is right. */
    coded[place % coded_size] ^= head[5];
    free(decoded(id, coded, coded_size, size));
    free(decoded(id, coded, place % coded_size, size));
    coded[place % coded_size] ^= head[5];
    ALWAYS(decoded(id, coded, coded_size, size + 1) == NULL);
    ALWAYS(size == 1 || decoded(id, coded, coded_size, size - 1) == NULL);
    out = decoded(id, coded, coded_size, size);
    ALWAYS(out != NULL && memcmp(out, content, size) == 0);
    free(out);
    free(coded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int id;
    int level;

    if (codec == NULL && (nc_codec_open(&codec, NULL) != NC_ERR_OK ||
                          nc_codec_available() != (1u << NC_CODEC_COUNT) - 1))
        abort();
    if (size <= HEAD)
        return 0;
    id = data[0] % NC_CODEC_COUNT;
    level = data[0] / NC_CODEC_COUNT % 17 + (id == NC_CODEC_LZ4 ? 1 : NC_CODEC_LEVEL_MIN);
    free(decoded(id, data + HEAD, size - HEAD, 1 + ((size_t)data[1] << 8 | data[2])));
    a_round_trip_holds(id, level, data, data + HEAD, size - HEAD);
    return 0;
}
