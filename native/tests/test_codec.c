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

/* In blocks of their exact size, so that the sanitizer sees a read or write behind one. */
static int decode(struct nc_codec *codec, int id, const uint8_t *bytes, size_t coded_size,
                  size_t size, struct nc_err *err)
{
    uint8_t *in = malloc(coded_size + (coded_size == 0));
    uint8_t *out = malloc(size + (size == 0));
    int code = NC_ERR_MEMORY;

    CHECK(in != NULL && out != NULL);
    if (in != NULL && out != NULL) {
        memcpy(in, bytes, coded_size);
        memset(err, 0, sizeof *err);
        code = nc_codec_decode(codec, id, in, coded_size, out, size, err);
        CHECK(code == NC_ERR_OK || (err->code == code && err->reason[0] != '\0'));
    }
    free(in);
    free(out);
    return code;
}

#define REFUSED(id, bytes, coded_size, size, part)                                                 \
    do {                                                                                           \
        struct nc_err why;                                                                         \
        CHECK(decode(codec, id, bytes, coded_size, size, &why) == NC_ERR_INTEGRITY);               \
        if (strstr(why.reason, part) == NULL)                                                      \
            CHECK_TEXT(why.reason, part);                                                          \
    } while (0)

static void a_library_that_is_not_there_or_another_one_is_unavailable_and_is_tried_again(void)
{
    struct nc_err err = {0};

    CHECK(nc_codec_load(NC_CODEC_ZSTD, "libnonesuch.so.9", &err) == NC_ERR_UNAVAILABLE);
    CHECK(strstr(err.reason, "libnonesuch.so.9") != NULL);
    CHECK(nc_codec_load(NC_CODEC_LZ4, "libzstd.so.1", &err) == NC_ERR_UNAVAILABLE);
    CHECK_TEXT(err.reason, "the library has no LZ4_versionString");
    CHECK(nc_codec_load(NC_CODEC_COUNT, NULL, &err) == NC_ERR_INVALID);
    CHECK(nc_codec_load(-1, NULL, &err) == NC_ERR_INVALID);
    CHECK(nc_codec_load(NC_CODEC_RAW, NULL, &err) == NC_ERR_OK);
    CHECK(nc_codec_load(NC_CODEC_ZSTD, NULL, &err) == NC_ERR_OK);
    CHECK(nc_codec_load(NC_CODEC_ZSTD, "libnonesuch.so.9", &err) == NC_ERR_OK);
    CHECK(nc_codec_available() == (1u << NC_CODEC_RAW | 1u << NC_CODEC_LZ4 | 1u << NC_CODEC_ZSTD));
    CHECK(strncmp(nc_codec_version(NC_CODEC_ZSTD), "1.", 2) == 0);
    CHECK(strncmp(nc_codec_version(NC_CODEC_LZ4), "1.", 2) == 0);
    CHECK_TEXT(nc_codec_version(NC_CODEC_RAW), "");
    CHECK_TEXT(nc_codec_version(77), "");
    CHECK_TEXT(nc_codec_missing(NC_CODEC_ZSTD), "");
    CHECK_TEXT(nc_codec_missing(NC_CODEC_RAW), "");
    CHECK_TEXT(nc_codec_missing(77), "");
}

static void what_is_encoded_is_decoded_at_every_level(struct nc_codec *codec)
{
    struct nc_err err;

    for (int id = 0; id < NC_CODEC_COUNT; id++) {
        for (int level = NC_CODEC_LEVEL_MIN; level <= NC_CODEC_LEVEL_MAX; level++) {
            for (size_t size = 1; size <= sizeof content; size = size * 7 + 3) {
                int step = id == NC_CODEC_LZ4 && level < 1 ? 1 : level;
                size_t fits;
                size_t coded_size;

                CHECK(nc_codec_encode(codec, id, step, content, size, coded, sizeof coded, &fits,
                                      &err) == NC_ERR_OK);
                CHECK(fits > 0);
                memset(decoded, 0xee, sizeof decoded);
                CHECK(nc_codec_decode(codec, id, coded, fits, decoded, size, &err) == NC_ERR_OK);
                CHECK(memcmp(content, decoded, size) == 0);
                CHECK(size == sizeof decoded || decoded[size] == 0xee);
                coded[fits - 1] = 0x5a;
                CHECK(nc_codec_encode(codec, id, step, content, size, coded, fits - 1, &coded_size,
                                      &err) == NC_ERR_OK);
                CHECK(coded_size == 0);
                CHECK(coded[fits - 1] == 0x5a);
            }
        }
    }
}

static void the_largest_chunk_is_taken_and_more_is_not(struct nc_codec *codec)
{
    size_t size = NC_CODEC_MAX_CONTENT;
    uint8_t *large = calloc(1, size + 1);
    uint8_t *out = malloc(size);
    struct nc_err err;

    CHECK(large != NULL && out != NULL);
    if (large == NULL || out == NULL)
        return;
    for (size_t i = 0; i < size; i += 1000)
        large[i] = (uint8_t)(i / 1000);
    for (int id = NC_CODEC_LZ4; id < NC_CODEC_COUNT; id++) {
        size_t coded_size;

        CHECK(nc_codec_encode(codec, id, 9, large, size, coded, sizeof coded, &coded_size, &err) ==
              NC_ERR_OK);
        CHECK(coded_size > 0);
        CHECK(nc_codec_decode(codec, id, coded, coded_size, out, size, &err) == NC_ERR_OK);
        CHECK(memcmp(large, out, size) == 0);
        CHECK(nc_codec_encode(codec, id, 1, large, size + 1, coded, sizeof coded, &coded_size,
                              &err) == NC_ERR_INVALID);
        CHECK(coded_size == 0);
        CHECK(nc_codec_decode(codec, id, coded, 10, large, size + 1, &err) == NC_ERR_INVALID);
        CHECK(nc_codec_decode(codec, id, coded, 10, large, 0, &err) == NC_ERR_INVALID);
    }
    CHECK(nc_codec_memory(codec) > ((size_t)1 << 20));
    CHECK(nc_codec_memory(codec) < ((size_t)100 << 20));
    free(large);
    free(out);
}

static void a_codec_or_level_that_does_not_exist_is_invalid(struct nc_codec *codec)
{
    struct nc_err err;
    size_t size = 1;

    CHECK(nc_codec_encode(codec, NC_CODEC_ZSTD, -8, content, 10, coded, 100, &size, &err) ==
          NC_ERR_INVALID);
    CHECK_TEXT(err.reason, "zstd has no level -8");
    CHECK(nc_codec_encode(codec, NC_CODEC_ZSTD, 20, content, 10, coded, 100, &size, &err) ==
          NC_ERR_INVALID);
    CHECK(nc_codec_encode(codec, NC_CODEC_COUNT, 1, content, 10, coded, 100, &size, &err) ==
          NC_ERR_INVALID);
    CHECK(nc_codec_decode(codec, -1, coded, 10, decoded, 10, &err) == NC_ERR_INVALID);
    CHECK(nc_codec_encode(codec, NC_CODEC_LZ4, 0, content, 10, coded, 100, &size, &err) ==
          NC_ERR_INVALID);
    CHECK_TEXT(err.reason, "lz4 has no level 0");
    CHECK(nc_codec_encode(codec, NC_CODEC_LZ4, 20, content, 10, coded, 100, &size, &err) ==
          NC_ERR_INVALID);
    CHECK(nc_codec_encode(codec, NC_CODEC_LZ4, 1, content, 4000, coded, SIZE_MAX, &size, &err) ==
          NC_ERR_OK);
    CHECK(size > 0);
}

static void a_size_that_was_not_agreed_on_is_refused(struct nc_codec *codec)
{
    struct nc_err err;

    for (int id = 0; id < NC_CODEC_COUNT; id++) {
        size_t coded_size;

        CHECK(nc_codec_encode(codec, id, 1, content, 3000, coded, sizeof coded, &coded_size,
                              &err) == NC_ERR_OK);
        REFUSED(id, coded, coded_size, 2999, "2999");
        REFUSED(id, coded, coded_size, 3001, "3001");
        REFUSED(id, coded, coded_size, 1, "1");
        REFUSED(id, coded, coded_size, NC_CODEC_MAX_CONTENT, "4194304");
        CHECK(decode(codec, id, coded, coded_size, 3000, &err) == NC_ERR_OK);
    }
}

static void what_is_cut_off_or_goes_on_is_refused(struct nc_codec *codec)
{
    struct nc_err err;

    for (int id = 0; id < NC_CODEC_COUNT; id++) {
        size_t coded_size;

        CHECK(nc_codec_encode(codec, id, 1, content, 5000, coded, sizeof coded, &coded_size,
                              &err) == NC_ERR_OK);
        for (size_t size = 0; size < coded_size; size++)
            CHECK(decode(codec, id, coded, size, 5000, &err) == NC_ERR_INTEGRITY);
        memset(coded + coded_size, 0, 20);
        for (size_t more = 1; more < 20; more++)
            CHECK(decode(codec, id, coded, coded_size + more, 5000, &err) == NC_ERR_INTEGRITY);
        CHECK(decode(codec, id, coded, coded_size, 5000, &err) == NC_ERR_OK);
    }
}

static void whatever_byte_is_changed_no_more_comes_out_than_was_agreed_on(struct nc_codec *codec)
{
    struct nc_err err;

    for (int id = NC_CODEC_LZ4; id < NC_CODEC_COUNT; id++) {
        size_t coded_size;

        CHECK(nc_codec_encode(codec, id, 3, content + 1900, 400, coded, sizeof coded, &coded_size,
                              &err) == NC_ERR_OK);
        for (size_t place = 0; place < coded_size; place++) {
            for (unsigned int change = 1; change < 256; change++) {
                int code;

                coded[place] ^= (uint8_t)change;
                code = decode(codec, id, coded, coded_size, 400, &err);
                CHECK(code == NC_ERR_OK || code == NC_ERR_INTEGRITY);
                coded[place] ^= (uint8_t)change;
            }
        }
        CHECK(decode(codec, id, coded, coded_size, 400, &err) == NC_ERR_OK);
    }
}

/* Written by hand after RFC 8878: descriptor, window, dictionary, size; a block of one byte that is
 * repeated. */
static void a_frame_of_zstd_that_lies_is_refused_before_it_costs_anything(struct nc_codec *codec)
{
    static const uint8_t honest[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 100, 0x23, 0x03, 0, 'x'};
    static const uint8_t bomb[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 100, 0x03, 0x00, 0x10, 'x'};
    static const uint8_t blocks[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 100,  0x22,
                                     0x03, 0,    'x',  0x23, 0x03, 0x00, 'x'};
    static const uint8_t little[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 100, 0x1b, 0x03, 0, 'x'};
    static const uint8_t huge[] = {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0,    0, 0,  0,
                                   0,    0,    0,    0x10, 0x23, 0x03, 0, 'x'};
    static const uint8_t wide[] = {0x28, 0xb5, 0x2f, 0xfd, 0x40, 0x90, 0, 0, 0x03, 0x08, 0, 'x'};
    static const uint8_t narrow[] = {0x28, 0xb5, 0x2f, 0xfd, 0x40, 0x08, 0, 0, 0x03, 0x08, 0, 'x'};
    static const uint8_t dictionary[] = {0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 100, 0x23, 0x03, 0, 'x'};
    static const uint8_t silent[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0, 0x23, 0x03, 0, 'x'};
    static const uint8_t reserved[] = {0x28, 0xb5, 0x2f, 0xfd, 0x28, 100, 0x23, 0x03, 0, 'x'};
    static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'a', 'b'};
    static const uint8_t endless[] = {0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 'a', 'b'};
    uint8_t two[sizeof honest + sizeof skippable];
    struct nc_err err;

    CHECK(decode(codec, NC_CODEC_ZSTD, honest, sizeof honest, 100, &err) == NC_ERR_OK);
    REFUSED(NC_CODEC_ZSTD, bomb, sizeof bomb, 100, "cannot be decoded");
    REFUSED(NC_CODEC_ZSTD, blocks, sizeof blocks, 100, "cannot be decoded");
    REFUSED(NC_CODEC_ZSTD, little, sizeof little, 100, "cannot be decoded");
    REFUSED(NC_CODEC_ZSTD, huge, sizeof huge, 100,
            "declares 1152921504606846976 bytes, 100 were agreed on");
    REFUSED(NC_CODEC_ZSTD, wide, sizeof wide, 256, "a window of 268435456 bytes for 256");
    REFUSED(NC_CODEC_ZSTD, narrow, sizeof narrow, 256, "a window of 2048 bytes for 256");
    REFUSED(NC_CODEC_ZSTD, dictionary, sizeof dictionary, 100, "dictionary");
    REFUSED(NC_CODEC_ZSTD, silent, sizeof silent, 100, "declares no size");
    REFUSED(NC_CODEC_ZSTD, reserved, sizeof reserved, 100, "does not hold");
    REFUSED(NC_CODEC_ZSTD, skippable, sizeof skippable, 100, "no frame of zstd");
    REFUSED(NC_CODEC_ZSTD, endless, sizeof endless, 100, "no frame of zstd");
    memcpy(two, honest, sizeof honest);
    memcpy(two + sizeof honest, skippable, sizeof skippable);
    REFUSED(NC_CODEC_ZSTD, two, sizeof two, 100, "10 bytes follow a chunk");
    memcpy(two + sizeof honest, honest, sizeof honest);
    REFUSED(NC_CODEC_ZSTD, two, 2 * sizeof honest, 100, "10 bytes follow a chunk");
    memcpy(two, skippable, sizeof skippable);
    REFUSED(NC_CODEC_ZSTD, two, sizeof two, 100, "no frame of zstd");
    CHECK(decode(codec, NC_CODEC_ZSTD, honest, sizeof honest, 100, &err) == NC_ERR_OK);
}

static void a_block_of_lz4_that_lies_is_refused(struct nc_codec *codec)
{
    /* A literal, then a match of many bytes, whose length goes on; the last five are literals. */
    static const uint8_t bomb[] = {0x1f, 'x',  1,    0,   0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0x50, 'x', 'x',  'x',  'x',  'x'};
    static const uint8_t far[] = {0x1f, 'x', 200, 0, 10, 0x50, 'x', 'x', 'x', 'x', 'x'};
    static const uint8_t nowhere[] = {0x1f, 'x', 0, 0, 10, 0x50, 'x', 'x', 'x', 'x', 'x'};
    static const uint8_t literals[] = {0xf0, 0xff, 0xff, 0xff, 0xff, 'x'};
    static const uint8_t nothing[] = {0};
    uint8_t much[300] = {0xf0, 85};
    struct nc_err err;

    REFUSED(NC_CODEC_LZ4, bomb, sizeof bomb, 100, "none of 100 bytes");
    REFUSED(NC_CODEC_LZ4, far, sizeof far, 100, "none of 100 bytes");
    REFUSED(NC_CODEC_LZ4, literals, sizeof literals, 100, "none of 100 bytes");
    REFUSED(NC_CODEC_LZ4, nothing, sizeof nothing, 100, "has 0 bytes, not 100");
    REFUSED(NC_CODEC_LZ4, much, sizeof much, 100, "is none of 100");
    REFUSED(NC_CODEC_LZ4, nothing, 0, 100, "is damaged");
    /* What an offset of zero gives differs between versions: bytes, but never too many. */
    (void)decode(codec, NC_CODEC_LZ4, nowhere, sizeof nowhere, 100, &err);
    CHECK(decode(codec, NC_CODEC_LZ4, much, 102, 100, &err) == NC_ERR_OK);
}

int main(void)
{
    struct nc_codec *codec;

    a_library_that_is_not_there_or_another_one_is_unavailable_and_is_tried_again();
    CHECK(nc_codec_open(&codec, NULL) == NC_ERR_OK);
    fill();
    what_is_encoded_is_decoded_at_every_level(codec);
    the_largest_chunk_is_taken_and_more_is_not(codec);
    a_codec_or_level_that_does_not_exist_is_invalid(codec);
    a_size_that_was_not_agreed_on_is_refused(codec);
    what_is_cut_off_or_goes_on_is_refused(codec);
    whatever_byte_is_changed_no_more_comes_out_than_was_agreed_on(codec);
    a_frame_of_zstd_that_lies_is_refused_before_it_costs_anything(codec);
    a_block_of_lz4_that_lies_is_refused(codec);
    nc_codec_close(codec);
    nc_codec_close(NULL);
    return CHECK_RESULT;
}
