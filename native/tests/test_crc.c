#include "nc_crc.h"

#include <stdlib.h>

#include "../src/nc_crc_fold.h"
#include "check.h"

#define SIZE 5000

/* The definition, a bit at a time; nothing of it is shared with what is tested. */
static uint32_t plain(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

static void fill(uint8_t *data, size_t size)
{
    uint32_t state = 12345;

    for (size_t i = 0; i < size; i++) {
        state = state * 1664525 + 1013904223;
        data[i] = (uint8_t)(state >> 24);
    }
}

static void known_answers_are_zlibs(void)
{
    CHECK(nc_crc32(0, "123456789", 9) == 0xcbf43926u);
    CHECK(nc_crc32_tables(0, "123456789", 9) == 0xcbf43926u);
    CHECK(nc_crc32(0, "", 0) == 0);
    CHECK(nc_crc32(0x12345678u, "", 0) == 0x12345678u);
    CHECK(nc_crc32(nc_crc32(0, "1234", 4), "56789", 5) == 0xcbf43926u);
}

/* Blocks of their exact size, so that the sanitizer sees a read behind one. */
static void every_kernel_agrees_with_the_definition_at_every_size_and_start(void)
{
    for (size_t size = 0; size < 1100; size++) {
        size_t start = size % 67;
        uint8_t *data = malloc(start + size + 1);
        uint32_t expected;

        CHECK(data != NULL);
        if (data == NULL)
            return;
        fill(data, start + size);
        expected = plain((uint32_t)size * 77, data + start, size);
        CHECK(nc_crc32((uint32_t)size * 77, data + start, size) == expected);
        CHECK(nc_crc32_tables((uint32_t)size * 77, data + start, size) == expected);
#if NC_CRC_FOLDING
        if (__builtin_cpu_supports("pclmul"))
            CHECK(~nc_crc_state_pclmul(~((uint32_t)size * 77), data + start, size) == expected);
#endif
        free(data);
    }
}

static void a_message_may_be_cut_anywhere(void)
{
    static uint8_t data[SIZE];
    uint32_t whole;

    fill(data, sizeof data);
    whole = plain(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut += 13)
        CHECK(nc_crc32(nc_crc32(0, data, cut), data + cut, sizeof data - cut) == whole);
}

static void zeros_need_not_be_there(void)
{
    static const uint8_t zeros[SIZE];
    const uint64_t terabytes = UINT64_C(5) << 40;

    for (size_t size = 0; size <= sizeof zeros; size += 7) {
        CHECK(nc_crc32_zeros(0, size) == nc_crc32(0, zeros, size));
        CHECK(nc_crc32_zeros(0xdeadbeefu, size) == nc_crc32(0xdeadbeefu, zeros, size));
    }
    CHECK(nc_crc32_zeros(nc_crc32_zeros(7, terabytes + 3), terabytes) ==
          nc_crc32_zeros(7, 2 * terabytes + 3));
    /* The register comes back after 2^32 - 1 bits: eight times that are as many bytes. */
    CHECK(nc_crc32_zeros(7, UINT32_MAX) == 7);
    CHECK(nc_crc32_zeros(7, UINT64_MAX) == 7);
}

/* x^n mod P, by the definition, lowest coefficient in bit 0; then reversed. */
static uint32_t reversed_power(unsigned int n)
{
    uint32_t remainder = 1;
    uint32_t reversed = 0;

    while (n-- > 0)
        remainder = remainder & 0x80000000u ? remainder << 1 ^ 0x04c11db7u : remainder << 1;
    for (int bit = 0; bit < 32; bit++)
        reversed |= (remainder >> bit & 1) << (31 - bit);
    return reversed;
}

static void the_constants_are_the_powers_of_x_they_claim_to_be(void)
{
#define X(bits, low, high)                                                                         \
    CHECK(reversed_power((bits) + 31) == (low));                                                   \
    CHECK(reversed_power((bits) - 33) == (high));
    NC_CRC_FOLDS(X)
#undef X
}

static void the_kernel_is_one_the_cpu_has(void)
{
    const char *kernel = nc_crc32_kernel();

    if (strcmp(kernel, "tables") != 0) {
#if NC_CRC_FOLDING
        CHECK(__builtin_cpu_supports("pclmul"));
        CHECK(strcmp(kernel, "pclmul") == 0 || __builtin_cpu_supports("vpclmulqdq"));
#else
        CHECK_TEXT(kernel, "tables");
#endif
    }
}

int main(void)
{
    known_answers_are_zlibs();
    every_kernel_agrees_with_the_definition_at_every_size_and_start();
    a_message_may_be_cut_anywhere();
    zeros_need_not_be_there();
    the_constants_are_the_powers_of_x_they_claim_to_be();
    the_kernel_is_one_the_cpu_has();
    return CHECK_RESULT;
}
