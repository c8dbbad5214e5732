#include "nc_delta.h"

#include <stdlib.h>

#include "check.h"

static uint32_t state = 12345;

static uint32_t next(void)
{
    state = state * 1664525 + 1013904223;
    return state >> 8;
}

/* The format once more, a byte at a time, as nc_delta.h words it: nothing of it is shared with what
 * is tested. -1 where it does not describe `size` bytes. */
static int plain(const uint8_t *delta, size_t delta_size, const uint8_t *base, uint8_t *content,
                 size_t size)
{
    size_t in = 0;
    size_t done = 0;

    for (size_t record = 0; done < size; record++) {
        for (int literal = 0; literal < 2; literal++) {
            uint64_t run = 0;
            unsigned int bytes = 0;

            do {
                if (in == delta_size || bytes == 9)
                    return -1;
                run |= (uint64_t)(delta[in] & 0x7f) << 7 * bytes++;
            } while (delta[in++] & 0x80);
            if ((bytes > 1 && delta[in - 1] == 0) || run > size - done)
                return -1;
            if (run == 0 && (literal || record > 0))
                return -1;
            if (literal && run > delta_size - in)
                return -1;
            for (; run > 0; run--, done++)
                content[done] = literal ? base[done] ^ delta[in++] : base[done];
            if (done == size && !literal)
                break;
        }
    }
    return in == delta_size ? 0 : -1;
}

struct blocks {
    size_t size;
    uint8_t *base; /* each of its exact size, so that the sanitizer sees a step over an end */
    uint8_t *content;
    uint8_t *decoded;
    uint8_t *expected;
    uint8_t *delta; /* size + NC_DELTA_SPARE */
};

static uint8_t *block(size_t size)
{
    uint8_t *bytes = malloc(size + (size == 0));

    if (bytes == NULL)
        abort();
    return bytes;
}

static void open_blocks(struct blocks *blocks, size_t size)
{
    blocks->size = size;
    blocks->base = block(size);
    blocks->content = block(size);
    blocks->decoded = block(size);
    blocks->expected = block(size);
    blocks->delta = block(size + NC_DELTA_SPARE);
    for (size_t i = 0; i < size; i++)
        blocks->base[i] = blocks->content[i] = (uint8_t)next();
}

static void close_blocks(struct blocks *blocks)
{
    free(blocks->base);
    free(blocks->content);
    free(blocks->decoded);
    free(blocks->expected);
    free(blocks->delta);
}

/* What is encoded is decoded; both kernels say the same, in the least capacity and in no less. */
static void holds(struct blocks *blocks)
{
    const size_t size = blocks->size;
    size_t delta_size =
        nc_delta_encode(blocks->content, blocks->base, size, blocks->delta, size + NC_DELTA_SPARE);
    uint8_t *exact = block(delta_size);
    struct nc_err err = {0};

    CHECK(delta_size > 0 && delta_size <= size + NC_DELTA_SPARE);
    CHECK(nc_delta_encode(blocks->content, blocks->base, size, exact, delta_size) == delta_size);
    CHECK(memcmp(exact, blocks->delta, delta_size) == 0);
    memset(exact, 0xee, delta_size);
    CHECK(nc_delta_encode_portable(blocks->content, blocks->base, size, exact, delta_size) ==
          delta_size);
    CHECK(memcmp(exact, blocks->delta, delta_size) == 0);
    CHECK(plain(exact, delta_size, blocks->base, blocks->expected, size) == 0);
    CHECK(memcmp(blocks->expected, blocks->content, size) == 0);
    CHECK(nc_delta_decode(exact, delta_size, blocks->base, blocks->decoded, size, &err) ==
          NC_ERR_OK);
    CHECK(memcmp(blocks->decoded, blocks->content, size) == 0);
    free(exact);
    exact = block(delta_size - 1);
    CHECK(nc_delta_encode(blocks->content, blocks->base, size, exact, delta_size - 1) == 0);
    CHECK(nc_delta_encode_portable(blocks->content, blocks->base, size, exact, delta_size - 1) ==
          0);
    free(exact);
    /* In place, which spoils the base: last. */
    CHECK(nc_delta_decode(blocks->delta, delta_size, blocks->base, blocks->base, size, &err) ==
          NC_ERR_OK);
    CHECK(memcmp(blocks->base, blocks->content, size) == 0);
}

static void what_is_encoded_is_decoded_whatever_the_size_and_the_changes(void)
{
    for (size_t size = 1; size < 2000; size++) {
        struct blocks blocks;
        uint32_t changes = next() % 4 == 0 ? next() % (uint32_t)(size + 1) : next() % 20;

        open_blocks(&blocks, size);
        for (uint32_t i = 0; i < changes; i++)
            blocks.content[next() % size] ^= (uint8_t)next();
        holds(&blocks);
        close_blocks(&blocks);
    }
}

static void runs_of_every_length_at_every_place_are_decoded(void)
{
    const size_t size = 1100;

    for (size_t from = 0; from < size; from += 1 + next() % 13) {
        for (size_t end = from; end <= size; end += 1 + next() % 97) {
            struct blocks blocks;

            open_blocks(&blocks, size);
            for (size_t i = from; i < end; i++)
                blocks.content[i] ^= 0x81;
            holds(&blocks);
            close_blocks(&blocks);
        }
    }
}

static void what_is_equal_takes_next_to_nothing_and_what_differs_hardly_more_than_itself(void)
{
    struct blocks blocks;
    size_t size;

    open_blocks(&blocks, 100000);
    CHECK(nc_delta_encode(blocks.content, blocks.base, 100000, blocks.delta, 100) == 3);
    blocks.content[50000] ^= 1;
    CHECK(nc_delta_encode(blocks.content, blocks.base, 100000, blocks.delta, 100) == 8);
    for (size_t i = 0; i < 100000; i++)
        blocks.content[i] = (uint8_t)~blocks.base[i];
    size = nc_delta_encode(blocks.content, blocks.base, 100000, blocks.delta, 100016);
    CHECK(size == 100004);
    /* The worst of all: every second word. */
    for (size_t i = 0; i < 100000; i++)
        blocks.content[i] = i / 8 % 2 ? blocks.base[i] : (uint8_t)~blocks.base[i];
    size = nc_delta_encode(blocks.content, blocks.base, 100000, blocks.delta, 100016);
    CHECK(size < 63000);
    close_blocks(&blocks);
    CHECK(nc_delta_encode(NULL, NULL, 0, NULL, 0) == 0);
}

static void the_bytes_are_those_that_are_documented(void)
{
    static const uint8_t expected[] = {3, 2, 1, 2, 27, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xaf, 2};
    uint8_t base[344];
    uint8_t content[344];
    uint8_t delta[sizeof expected];
    struct nc_err err;

    memset(base, 'b', sizeof base);
    memset(content, 'b', sizeof content);
    content[3] ^= 1;
    content[4] ^= 2;
    content[32] ^= 1; /* eight equal bytes between these two, but no equal word */
    content[40] ^= 1;
    CHECK(nc_delta_encode(content, base, sizeof base, delta, sizeof delta) == sizeof expected);
    CHECK(memcmp(delta, expected, sizeof expected) == 0);
    CHECK(nc_delta_decode(expected, sizeof expected, base, base, sizeof base, &err) == NC_ERR_OK);
    CHECK(memcmp(base, content, sizeof base) == 0);
}

#define REFUSED(part, ...)                                                                         \
    do {                                                                                           \
        const uint8_t bytes[] = {__VA_ARGS__};                                                     \
        memset(out, 'o', sizeof out);                                                              \
        CHECK(nc_delta_decode(bytes, sizeof bytes, base, out, sizeof out, &err) ==                 \
              NC_ERR_INTEGRITY);                                                                   \
        if (strstr(err.reason, part) == NULL)                                                      \
            CHECK_TEXT(err.reason, part);                                                          \
        for (size_t i = 0; i < sizeof out; i++)                                                    \
            CHECK(out[i] == 'o');                                                                  \
    } while (0)

static void what_does_not_describe_the_block_is_refused_and_nothing_is_written(void)
{
    uint8_t base[100] = {0};
    uint8_t out[100];
    struct nc_err err;

    CHECK(nc_delta_decode(base, 0, base, out, sizeof out, &err) == NC_ERR_INTEGRITY);
    REFUSED("leads past the end", 101);
    REFUSED("no such literals", 99);
    REFUSED("too many", 100, 0);
    REFUSED("no such literals", 99, 0);
    REFUSED("no such literals", 99, 2, 1, 1);
    REFUSED("no such literals", 90, 10, 1, 1, 1);
    REFUSED("too many", 99, 1, 1, 1);
    REFUSED("leads past the end", 0x80 | 100, 0);
    REFUSED("leads past the end", 0x80);
    REFUSED("leads past the end", 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f);
    REFUSED("leads past the end", 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1);
    REFUSED("leads past the end", 1, 1, 7, 0, 1, 7);
    REFUSED("leads past the end", 1, 1, 7);
    REFUSED("no such literals", 1, 0x80 | 1, 0);
    REFUSED("no such literals", 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3);
    CHECK(nc_delta_decode(base, 1, base, out, 0, &err) == NC_ERR_INTEGRITY);
    CHECK(nc_delta_decode(base, 0, base, out, 0, &err) == NC_ERR_OK);
}

/* Decoders that agree on what they take cannot be told apart by what is sent to one of them. */
static void what_is_taken_is_what_the_words_of_the_format_say(void)
{
    uint8_t base[40];
    uint8_t expected[40];
    uint8_t out[40];
    uint32_t taken = 0;

    for (size_t i = 0; i < sizeof base; i++)
        base[i] = (uint8_t)next();
    for (int round = 0; round < 300000; round++) {
        size_t size = next() % 10;
        uint8_t *delta = block(size);
        struct nc_err err;
        size_t describes = 1 + next() % (round % 2 ? 40 : 5);
        int code;

        for (size_t i = 0; i < size; i++)
            delta[i] = (uint8_t)(next() % (round % 3 ? 6 : 256));
        memset(out, 0, sizeof out);
        code = nc_delta_decode(delta, size, base, out, describes, &err);
        CHECK((code == NC_ERR_OK) == (plain(delta, size, base, expected, describes) == 0));
        if (code == NC_ERR_OK) {
            CHECK(memcmp(out, expected, describes) == 0);
            taken++;
        }
        free(delta);
    }
    CHECK(taken > 1000);
}

int main(void)
{
    what_is_encoded_is_decoded_whatever_the_size_and_the_changes();
    runs_of_every_length_at_every_place_are_decoded();
    what_is_equal_takes_next_to_nothing_and_what_differs_hardly_more_than_itself();
    the_bytes_are_those_that_are_documented();
    what_does_not_describe_the_block_is_refused_and_nothing_is_written();
    what_is_taken_is_what_the_words_of_the_format_say();
    return CHECK_RESULT;
}
