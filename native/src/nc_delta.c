#include "nc_delta.h"

#include <stdbool.h>
#include <string.h>

#include "nc_err.h"

#define WORD sizeof(uint64_t)
#define BLOCK (8 * WORD)
#define NUMBER_BYTES 5

static uint64_t difference(const uint8_t *content, const uint8_t *base)
{
    uint64_t left;
    uint64_t right;

    memcpy(&left, content, WORD);
    memcpy(&right, base, WORD);
    return left ^ right;
}

/* Where the next byte that differs is, from `at` on. */
static size_t skip_same(const uint8_t *content, const uint8_t *base, size_t at, size_t size)
{
    while (at + BLOCK <= size) {
        uint64_t any = 0;

        for (size_t i = 0; i < BLOCK; i += WORD)
            any |= difference(content + at + i, base + at + i);
        if (any != 0)
            break;
        at += BLOCK;
    }
    for (; at + WORD <= size; at += WORD) {
        uint64_t word = difference(content + at, base + at);

        if (word != 0) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            return at + (size_t)__builtin_ctzll(word) / 8;
#else
            return at + (size_t)__builtin_clzll(word) / 8;
#endif
        }
    }
    while (at < size && content[at] == base[at])
        at++;
    return at;
}

/* Where the bytes that differ end: eight in a row are the same, or it is the end. */
static size_t skip_different(const uint8_t *content, const uint8_t *base, size_t at, size_t size)
{
    size_t end = at;

    while (at + WORD <= size) {
        uint64_t word = difference(content + at, base + at);

        if (word == 0)
            return end;
        at += WORD;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        end = at - (size_t)__builtin_clzll(word) / 8;
#else
        end = at - (size_t)__builtin_ctzll(word) / 8;
#endif
    }
    for (; at < size; at++) {
        if (content[at] != base[at])
            end = at + 1;
    }
    return end;
}

static size_t put_number(uint8_t *at, size_t number)
{
    size_t count = 0;

    while (number >= 0x80) {
        at[count++] = (uint8_t)(number | 0x80);
        number >>= 7;
    }
    at[count++] = (uint8_t)number;
    return count;
}

size_t nc_delta_encode(const uint8_t *content, const uint8_t *base, size_t size, uint8_t *ret_delta,
                       size_t capacity)
{
    size_t at = 0;
    size_t made = 0;

    while (at < size) {
        size_t begin = skip_same(content, base, at, size);
        size_t end = begin < size ? skip_different(content, base, begin, size) : size;

        if (begin == size && made > 0)
            break;
        if (capacity - made < 2 * NUMBER_BYTES || capacity - made - 2 * NUMBER_BYTES < end - begin)
            return 0;
        made += put_number(ret_delta + made, begin - at);
        made += put_number(ret_delta + made, end - begin);
        for (size_t i = begin; i < end; i++)
            ret_delta[made++] = content[i] ^ base[i];
        at = end;
    }
    return made;
}

static bool get_number(const uint8_t *delta, size_t delta_size, size_t *at, size_t *ret_number)
{
    size_t number = 0;

    for (unsigned i = 0; i < NUMBER_BYTES && *at < delta_size; i++) {
        uint8_t byte = delta[(*at)++];

        number |= (size_t)(byte & 0x7f) << 7 * i;
        if (byte < 0x80) {
            *ret_number = number;
            return i == 0 || byte != 0;
        }
    }
    return false;
}

int nc_delta_decode(const uint8_t *delta, size_t delta_size, const uint8_t *base,
                    uint8_t *ret_content, size_t size, struct nc_err *err)
{
    size_t at = 0;
    size_t made = 0;

    while (at < delta_size) {
        size_t same;
        size_t differ;

        if (!get_number(delta, delta_size, &at, &same) ||
            !get_number(delta, delta_size, &at, &differ))
            return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a difference is damaged at byte %zu", at);
        if (same > size - made || differ > size - made - same || differ > delta_size - at)
            return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                              "a difference has more than the %zu bytes agreed on, or ends early",
                              size);
        if (differ == 0 && (made != 0 || at != delta_size || same != size))
            return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a difference has a piece of no bytes");
        if (base != ret_content)
            memcpy(ret_content + made, base + made, same);
        made += same;
        for (size_t i = 0; i < differ; i++)
            ret_content[made + i] = base[made + i] ^ delta[at + i];
        made += differ;
        at += differ;
    }
    if (base != ret_content)
        memcpy(ret_content + made, base + made, size - made);
    return NC_ERR_OK;
}
