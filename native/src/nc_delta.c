#include "nc_delta.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

/* Bytes whose words are looked at together: a bit each, in one register. */
#define GROUP 512
/* Bytes of a varint that holds any size_t. */
#define MAX_VARINT 10
/* Inlined also where the compiler would not: into the function of another instruction set. */
#define INLINE static inline __attribute__((always_inline))
#define AVX2 __attribute__((target("avx2")))

typedef uint64_t mapper(const uint8_t *content, const uint8_t *base);

struct writer {
    const uint8_t *content;
    const uint8_t *base;
    size_t size;
    size_t done; /* of content */
    uint8_t *out;
    uint8_t *end;
};

/* Lowest byte first, whatever the machine. */
INLINE uint64_t load(const uint8_t *data)
{
    uint64_t word;

    memcpy(&word, data, sizeof word);
    return le64toh(word);
}

INLINE void store(uint8_t *data, uint64_t word)
{
    word = htole64(word);
    memcpy(data, &word, sizeof word);
}

INLINE uint64_t differ(const uint8_t *content, const uint8_t *base)
{
    return load(content) ^ load(base);
}

/* --- A bit for each word of a group that differs --------------------------------------------- */

INLINE uint64_t map_by_words(const uint8_t *content, const uint8_t *base)
{
    uint64_t map = 0;

    for (unsigned int i = 0; i < 64; i++)
        map |= (uint64_t)(differ(content + (size_t)8 * i, base + (size_t)8 * i) != 0) << i;
    return map;
}

/* Of the last group, which has fewer words; a word that is cut off counts. */
static uint64_t map_rest(const uint8_t *content, const uint8_t *base, size_t size)
{
    uint64_t map = 0;

    for (size_t i = 0; i < size; i++)
        map |= (uint64_t)(content[i] != base[i]) << i / 8;
    return map;
}

#ifdef __x86_64__

AVX2 INLINE uint64_t map_by_vectors(const uint8_t *content, const uint8_t *base)
{
    uint64_t equal = 0;

    for (unsigned int i = 0; i < 64; i += 4) {
        const __m256i *a = (const __m256i *)(const void *)(content + (size_t)8 * i);
        const __m256i *b = (const __m256i *)(const void *)(base + (size_t)8 * i);
        __m256i words = _mm256_cmpeq_epi64(_mm256_loadu_si256(a), _mm256_loadu_si256(b));

        equal |= (uint64_t)(uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(words)) << i;
    }
    return ~equal;
}

#endif

/* --- Encoding -------------------------------------------------------------------------------- */

INLINE uint8_t *put_varint(uint8_t *out, size_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

/* Near an end of one of the three, where a word would lead over it. */
static bool put_bytes(struct writer *writer, size_t from, size_t end)
{
    uint8_t head[2 * MAX_VARINT];
    uint8_t *tail;
    size_t size;

    while (end > from && writer->content[end - 1] == writer->base[end - 1])
        end--;
    while (from < end && writer->content[from] == writer->base[from])
        from++;
    tail = put_varint(head, from - writer->done);
    if (end > from)
        tail = put_varint(tail, end - from);
    size = (size_t)(tail - head);
    if (size + (end - from) > (size_t)(writer->end - writer->out))
        return false;
    memcpy(writer->out, head, size);
    writer->out += size;
    for (size_t at = from; at < end; at++)
        *writer->out++ = writer->content[at] ^ writer->base[at];
    writer->done = end;
    return true;
}

/* A record of the equal bytes since the last one, and of the words from `from` up to `end`: first
 * and last of them differ, the one at `end` does not. */
INLINE bool put_words(struct writer *writer, size_t from, size_t end)
{
    const uint8_t *content = writer->content;
    const uint8_t *base = writer->base;
    size_t room = (size_t)(writer->end - writer->out);
    uint8_t *out;

    if (writer->size - from < 16 || end > writer->size - 8 || room < 2 * MAX_VARINT + 8 ||
        end - from > room - 2 * MAX_VARINT - 8)
        return put_bytes(writer, from, end < writer->size ? end : writer->size);
    from += (size_t)__builtin_ctzll(differ(content + from, base + from)) / 8;
    end -= (size_t)__builtin_clzll(differ(content + end - 8, base + end - 8)) / 8;
    out = put_varint(put_varint(writer->out, from - writer->done), end - from);
    for (size_t at = from; at < end; at += 8)
        store(out + (at - from), differ(content + at, base + at));
    writer->out = out + (end - from);
    writer->done = end;
    return true;
}

INLINE size_t encode(mapper *map_group, const uint8_t *content, const uint8_t *base, size_t size,
                     uint8_t *ret_delta, size_t capacity)
{
    struct writer writer = {content, base, size, 0, ret_delta, ret_delta + capacity};
    uint64_t before = 0; /* whether the last word differed */
    size_t from = 0;     /* where the run of literals began, if so */

    for (size_t group = 0; group < size; group += GROUP) {
        uint64_t map = size - group >= GROUP
                           ? map_group(content + group, base + group)
                           : map_rest(content + group, base + group, size - group);
        /* A bit for each word that is not like the one before it: runs begin and end there. */
        uint64_t edges = map ^ (map << 1 | before);

        for (; edges != 0; edges &= edges - 1) {
            size_t place = group + 8 * (size_t)__builtin_ctzll(edges);

            before ^= 1;
            if (before != 0)
                from = place;
            else if (!put_words(&writer, from, place))
                return 0;
        }
    }
    if (before != 0 && !put_bytes(&writer, from, size))
        return 0;
    if (writer.done < size && !put_bytes(&writer, size, size))
        return 0;
    return (size_t)(writer.out - ret_delta);
}

size_t nc_delta_encode_portable(const uint8_t *content, const uint8_t *base, size_t size,
                                uint8_t *ret_delta, size_t capacity)
{
    return encode(map_by_words, content, base, size, ret_delta, capacity);
}

#ifdef __x86_64__

AVX2 static size_t encode_avx2(const uint8_t *content, const uint8_t *base, size_t size,
                               uint8_t *ret_delta, size_t capacity)
{
    return encode(map_by_vectors, content, base, size, ret_delta, capacity);
}

#endif

size_t nc_delta_encode(const uint8_t *content, const uint8_t *base, size_t size, uint8_t *ret_delta,
                       size_t capacity)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return encode_avx2(content, base, size, ret_delta, capacity);
#endif
    return nc_delta_encode_portable(content, base, size, ret_delta, capacity);
}

/* --- Decoding -------------------------------------------------------------------------------- */

/* False where it is cut off, longer than needed, or over `most`. */
static bool get_long_varint(const uint8_t **delta, const uint8_t *end, size_t most,
                            size_t *ret_value)
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

INLINE bool get_varint(const uint8_t **delta, const uint8_t *end, size_t most, size_t *ret_value)
{
    if (*delta < end && **delta < 0x80) {
        *ret_value = *(*delta)++;
        return *ret_value <= most;
    }
    return get_long_varint(delta, end, most, ret_value);
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
                              "a difference of %zu bytes ends early, or leads past the end, %zu "
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

/* Copies up to 31 bytes more, which are then written over, where there is room for that. */
INLINE void copy(uint8_t *out, const uint8_t *base, size_t size, size_t room)
{
    if (size > 256 || room < size + 32) {
        memcpy(out, base, size);
        return;
    }
    for (size_t at = 0; at < size; at += 32)
        memcpy(out + at, base + at, 32);
}

/* out and base may be the same: what is behind `size` stays what the base is there. `room` is what
 * may be touched from all three on. */
INLINE void apply(uint8_t *out, const uint8_t *base, const uint8_t *literals, size_t size,
                  size_t room)
{
    size_t at = 0;

    for (; size - at >= 8; at += 8)
        store(out + at, differ(base + at, literals + at));
    if (at == size)
        return;
    if (room - at >= 8) {
        uint64_t mask = UINT64_MAX >> (64 - 8 * (size - at));

        store(out + at, load(base + at) ^ (load(literals + at) & mask));
        return;
    }
    for (; at < size; at++)
        out[at] = base[at] ^ literals[at];
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
            copy(ret_content + at, base + at, zeros, size - at);
        at += zeros;
        if (at == size)
            break;
        (void)get_varint(&in, end, size - at, &count);
        apply(ret_content + at, base + at, in, count,
              size - at < (size_t)(end - in) ? size - at : (size_t)(end - in));
        at += count;
        in += count;
    }
    return NC_ERR_OK;
}
