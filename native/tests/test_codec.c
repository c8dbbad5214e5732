#include "nc_codec.h"

#include <stdlib.h>

#include "check.h"

#define SIZE 100000

static uint8_t content[SIZE];
static uint8_t coded[SIZE + 1000];
static uint8_t decoded[SIZE];

/* Half of it compresses. */
static void fill(void)
{
    uint32_t state = 12345;

    for (size_t i = 0; i < sizeof content; i++) {
        state = state * 1664525 + 1013904223;
        content[i] = i % 4096 < 2048 ? (uint8_t)(state >> 24) : (uint8_t)(i / 4096);
    }
}

static void what_is_encoded_is_decoded(struct nc_codec *codec)
{
    struct nc_err err;

    for (int id = 0; id < NC_CODEC_COUNT; id++) {
        if ((nc_codec_available() >> id & 1) == 0)
            continue;
        for (int level = -7; level <= 19; level += 1) {
            for (size_t size = 1; size <= sizeof content; size = size * 7 + 3) {
                size_t coded_size;

                CHECK(nc_codec_encode(codec, id, level, content, size, coded, sizeof coded,
                                      &coded_size, &err) == NC_ERR_OK);
                CHECK(coded_size > 0);
                memset(decoded, 0xee, sizeof decoded);
                CHECK(nc_codec_decode(codec, id, coded, coded_size, decoded, size, &err) ==
                      NC_ERR_OK);
                CHECK(memcmp(content, decoded, size) == 0);
                CHECK(nc_codec_encode(codec, id, level, content, size, coded, coded_size - 1,
                                      &coded_size, &err) == NC_ERR_OK);
                CHECK(coded_size == 0);
            }
        }
    }
}

int main(void)
{
    struct nc_codec *codec;

    CHECK(nc_codec_open(&codec, NULL) == NC_ERR_OK);
    fill();
    what_is_encoded_is_decoded(codec);
    nc_codec_close(codec);
    nc_codec_close(NULL);
    return CHECK_RESULT;
}
