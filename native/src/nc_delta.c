#include "nc_delta.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

/* Equal bytes that end a run of literals: the width of a word, so that one comparison decides. */
#define GAP 8
/* Bytes of a varint that holds any size_t. */
#define MAX_VARINT 10

static uint64_t load(const uint8_t *data)
{
    uint64_t word;

    memcpy(&word, data, sizeof word);
    return le64toh(word);
}

static uint64_t differ(const uint8_t *content, const uint8_t *base)
{
    return load(content) ^ load(base);
}

/* The first byte from `at` on that differs, or size. */
static size_t next_difference(const uint8_t *content, const uint8_t *base, size_t at, size_t size)
{
    for (; size - at >= 32; at += 32) {
        if ((differ(content + at, base + at) | differ(content + at + 8, base + at + 8) |
             differ(content + at + 16, base + at + 16) |
             differ(content + at + 24, base + at + 24)) != 0)
            break;
    }
    for (; size - at >= 8; at += 8) {
        uint64_t bits = differ(content + at, base + at);

        if (bits != 0)
            return at + (size_t)__builtin_ctzll(bits) / 8;
    }
    for (; at < size; at++) {
        if (content[at] != base[at])
            break;
    }
    return at;
}

/* Behind the last literal of the run that goes on at `at`. */
static size_t end_of_literals(const uint8_t *content, const uint8_t *base, size_t at, size_t size)
{
    size_t end = at;

    for (; size - at >= GAP; at = end) {
        uint64_t bits = differ(content + at, base + at);

        if (bits == 0)
            return end;
        end = at + 8 - (size_t)__builtin_clzll(bits) / 8;
    }
    for (; at < size; at++) {
        if (content[at] != base[at])
            end = at + 1;
    }
    return end;
}

static uint8_t *put_varint(uint8_t *out, size_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

static void exclusive_or(uint8_t *out, const uint8_t *a, const uint8_t *b, size_t size)
{
    size_t at = 0;

    for (; size - at >= 8; at += 8) {
        uint64_t x;
        uint64_t y;

        memcpy(&x, a + at, sizeof x);
        memcpy(&y, b + at, sizeof y);
        x ^= y;
        memcpy(out + at, &x, sizeof x);
    }
    for (; at < size; at++)
        out[at] = a[at] ^ b[at];
}

size_t nc_delta_encode(const uint8_t *content, const uint8_t *base, size_t size, uint8_t *ret_delta,
                       size_t capacity)
{
    uint8_t *out = ret_delta;

    for (size_t at = 0; at < size;) {
        size_t from = next_difference(content, base, at, size);
        size_t end = from < size ? end_of_literals(content, base, from + 1, size) : from;
        uint8_t record[2 * MAX_VARINT];
        uint8_t *tail = put_varint(record, from - at);
        size_t room = capacity - (size_t)(out - ret_delta);
        size_t head;

        if (end > from)
            tail = put_varint(tail, end - from);
        head = (size_t)(tail - record);
        if (head > room || end - from > room - head)
            return 0;
        memcpy(out, record, head);
        out += head;
        exclusive_or(out, content + from, base + from, end - from);
        out += end - from;
        at = end;
    }
    return (size_t)(out - ret_delta);
}

/* False where it is cut off, longer than needed, or over `most`. */
static bool get_varint(const uint8_t **delta, const uint8_t *end, size_t most, size_t *ret_value)
{
    const uint8_t *in = *delta;
    uint64_t value = 0;

    for (unsigned int shift = 0; shift < 63 && in < end; shift += 7) {
        uint8_t byte = *in++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *delta = in;
            *ret_value = (size_t)value;
            return value <= most && (byte != 0 || shift == 0);
        }
    }
    return false;
}

/* Whether it describes exactly `size` bytes. Looks at nothing but the heads of the records. */
static int check(const uint8_t *delta, size_t delta_size, size_t size, struct nc_err *err)
{
    const uint8_t *in = delta;
    const uint8_t *end = delta + delta_size;

    for (size_t at = 0; at < size;) {
        size_t zeros;
        size_t count;
        bool first = at == 0;

        if (!get_varint(&in, end, size - at, &zeros) || (zeros == 0 && !first))
            return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                              "a difference of %zu bytes breaks off, or leads past the end, %zu "
                              "bytes into the %zu it describes",
                              delta_size, at, size);
        at += zeros;
        if (at == size)
            break;
        if (!get_varint(&in, end, size - at, &count) || count == 0 || count > (size_t)(end - in))
            return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                              "a difference of %zu bytes has no such literals %zu bytes into the "
                              "%zu it describes",
                              delta_size, at, size);
        at += count;
        in += count;
    }
    if (in != end)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a difference has %zu bytes too many",
                          (size_t)(end - in));
    return NC_ERR_OK;
}

int nc_delta_decode(const uint8_t *delta, size_t delta_size, const uint8_t *base,
                    uint8_t *ret_content, size_t size, struct nc_err *err)
{
    const uint8_t *in = delta;
    const uint8_t *end = delta + delta_size;
    /* First all of the heads: a base that is decoded in place is still needed where it fails. */
    int code = check(delta, delta_size, size, err);

    if (code != NC_ERR_OK)
        return code;
    for (size_t at = 0; at < size;) {
        size_t zeros = 0;
        size_t count = 0;

        (void)get_varint(&in, end, size - at, &zeros);
        if (base != ret_content)
            memcpy(ret_content + at, base + at, zeros);
        at += zeros;
        if (at == size)
            break;
        (void)get_varint(&in, end, size - at, &count);
        exclusive_or(ret_content + at, base + at, in, count);
        at += count;
        in += count;
    }
    return NC_ERR_OK;
}
