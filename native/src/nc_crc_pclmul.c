#include "nc_crc_fold.h"

#if NC_CRC_FOLDING

#include <immintrin.h>

/* The compiler's flags stay those of the oldest x86-64; only these functions use more, and only
 * nc_crc.c, which asks the CPU, calls them. */
#define PCLMUL __attribute__((target("pclmul,sse4.1")))
#define VPCLMUL __attribute__((target("pclmul,sse4.1,vpclmulqdq,avx512f")))

#define X(bits, low, high) static const uint32_t low_##bits = low, high_##bits = high;
NC_CRC_FOLDS(X)
#undef X

/* The block `later` and what `block`, as far before it as `by` says, amounts to there. */
PCLMUL static inline __m128i fold(__m128i block, __m128i by, __m128i later)
{
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(block, by, 0x00), later),
                         _mm_clmulepi64_si128(block, by, 0x11));
}

PCLMUL static inline __m128i load(const uint8_t *data)
{
    return _mm_loadu_si128((const __m128i *)(const void *)data);
}

PCLMUL uint32_t nc_crc_state_pclmul(uint32_t state, const uint8_t *data, size_t size)
{
    const __m128i by_128 = _mm_set_epi64x(high_128, low_128);
    const __m128i by_512 = _mm_set_epi64x(high_512, low_512);
    __m128i a, b, c, d;
    uint8_t rest[16];

    if (size < NC_CRC_PCLMUL_LEAST)
        return nc_crc_state_tables(state, data, size);
    a = _mm_xor_si128(load(data), _mm_cvtsi32_si128((int)state));
    b = load(data + 16);
    c = load(data + 32);
    d = load(data + 48);
    for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
        a = fold(a, by_512, load(data));
        b = fold(b, by_512, load(data + 16));
        c = fold(c, by_512, load(data + 32));
        d = fold(d, by_512, load(data + 48));
    }
    a = fold(fold(fold(a, by_128, b), by_128, c), by_128, d);
    for (; size >= 16; data += 16, size -= 16)
        a = fold(a, by_128, load(data));
    /* What is left has the remainder of all that was read: 16 bytes of an ordinary message. */
    _mm_storeu_si128((__m128i *)(void *)rest, a);
    return nc_crc_state_tables(nc_crc_state_tables(0, rest, sizeof rest), data, size);
}

VPCLMUL static inline __m512i fold_wide(__m512i block, __m512i by, const uint8_t *later)
{
    /* 0x96: the exclusive or of all three. */
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(block, by, 0x00),
                                     _mm512_clmulepi64_epi128(block, by, 0x11),
                                     _mm512_loadu_si512(later), 0x96);
}

VPCLMUL uint32_t nc_crc_state_vpclmul(uint32_t state, const uint8_t *data, size_t size)
{
    const __m512i by = _mm512_broadcast_i32x4(_mm_set_epi64x(high_2048, low_2048));
    __m512i a, b, c, d;
    uint8_t rest[256];

    if (size < NC_CRC_VPCLMUL_LEAST)
        return nc_crc_state_pclmul(state, data, size);
    a = _mm512_xor_si512(_mm512_loadu_si512(data),
                         _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
    b = _mm512_loadu_si512(data + 64);
    c = _mm512_loadu_si512(data + 128);
    d = _mm512_loadu_si512(data + 192);
    for (data += 256, size -= 256; size >= 256; data += 256, size -= 256) {
        a = fold_wide(a, by, data);
        b = fold_wide(b, by, data + 64);
        c = fold_wide(c, by, data + 128);
        d = fold_wide(d, by, data + 192);
    }
    _mm512_storeu_si512(rest, a);
    _mm512_storeu_si512(rest + 64, b);
    _mm512_storeu_si512(rest + 128, c);
    _mm512_storeu_si512(rest + 192, d);
    return nc_crc_state_pclmul(nc_crc_state_pclmul(0, rest, sizeof rest), data, size);
}

#endif
