#include "nc_zero.h"

#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

static uint64_t load(const uint8_t *data)
{
    uint64_t word;

    memcpy(&word, data, sizeof word);
    return word;
}

bool nc_is_zero_portable(const uint8_t *data, size_t size)
{
    uint64_t seen = 0;

    for (; size >= 64; data += 64, size -= 64) {
        seen = load(data) | load(data + 8) | load(data + 16) | load(data + 24) | load(data + 32) |
               load(data + 40) | load(data + 48) | load(data + 56);
        if (seen != 0)
            return false;
    }
    for (; size >= 8; data += 8, size -= 8)
        seen |= load(data);
    for (; size > 0; data++, size--)
        seen |= *data;
    return seen == 0;
}

#ifdef __x86_64__

#define AVX2 __attribute__((target("avx2")))

AVX2 static __m256i load32(const uint8_t *data)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)data);
}

AVX2 static __m256i load64(const uint8_t *data)
{
    return _mm256_or_si256(load32(data), load32(data + 32));
}

/* 256 bytes a turn: the branch and the test of one vector are then not what takes the time. */
AVX2 static bool is_zero_avx2(const uint8_t *data, size_t size)
{
    for (; size >= 256; data += 256, size -= 256) {
        __m256i seen = _mm256_or_si256(_mm256_or_si256(load64(data), load64(data + 64)),
                                       _mm256_or_si256(load64(data + 128), load64(data + 192)));

        if (!_mm256_testz_si256(seen, seen))
            return false;
    }
    return nc_is_zero_portable(data, size);
}

#endif

bool nc_is_zero(const uint8_t *data, size_t size)
{
#ifdef __x86_64__
    /* Most blocks that are not zero show it at once. */
    if (size >= 256 && load(data) == 0 && __builtin_cpu_supports("avx2"))
        return is_zero_avx2(data, size);
#endif
    return nc_is_zero_portable(data, size);
}
