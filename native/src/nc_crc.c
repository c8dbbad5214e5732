#include "nc_crc.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

#include "nc_crc_fold.h"

#define POLYNOMIAL 0xedb88320u /* reflected: bit i stands for x^(31 - i) */
#define ONE 0x80000000u        /* x^0 */
#define SLICES 16

static uint32_t tables[SLICES][256];
static uint32_t squares[32]; /* x^(2^i) mod P */
static nc_crc_kernel *kernel;
static const char *kernel_name;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* a * b mod P. */
static uint32_t product(uint32_t a, uint32_t b)
{
    uint32_t sum = 0;

    for (uint32_t bit = ONE; bit != 0; bit >>= 1) {
        if (a & bit)
            sum ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return sum;
}

static void prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t state = byte;

        for (int bit = 0; bit < 8; bit++)
            state = state & 1 ? state >> 1 ^ POLYNOMIAL : state >> 1;
        tables[0][byte] = state;
    }
    /* tables[n][b]: byte b with n zero bytes after it. */
    for (size_t slice = 1; slice < SLICES; slice++) {
        for (size_t byte = 0; byte < 256; byte++) {
            uint32_t before = tables[slice - 1][byte];

            tables[slice][byte] = before >> 8 ^ tables[0][before & 0xff];
        }
    }
    squares[0] = ONE >> 1;
    for (size_t i = 1; i < sizeof squares / sizeof squares[0]; i++)
        squares[i] = product(squares[i - 1], squares[i - 1]);

    kernel = nc_crc_state_tables;
    kernel_name = "tables";
#if NC_CRC_FOLDING
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
        kernel = nc_crc_state_pclmul;
        kernel_name = "pclmul";
        if (__builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f")) {
            kernel = nc_crc_state_vpclmul;
            kernel_name = "vpclmul";
        }
    }
#endif
}

static uint32_t load32(const uint8_t *data)
{
    uint32_t word;

    memcpy(&word, data, sizeof word);
    return le32toh(word);
}

/* Four bytes with `after` bytes behind them. Written out: at -O2 the loop costs half the speed. */
static uint32_t slices4(uint32_t word, size_t after)
{
    return tables[after + 3][word & 0xff] ^ tables[after + 2][word >> 8 & 0xff] ^
           tables[after + 1][word >> 16 & 0xff] ^ tables[after][word >> 24];
}

uint32_t nc_crc_state_tables(uint32_t state, const uint8_t *data, size_t size)
{
    for (; size >= 16; data += 16, size -= 16)
        state = slices4(load32(data) ^ state, 12) ^ slices4(load32(data + 4), 8) ^
                slices4(load32(data + 8), 4) ^ slices4(load32(data + 12), 0);
    for (; size >= 4; data += 4, size -= 4)
        state = slices4(load32(data) ^ state, 0);
    for (; size > 0; data++, size--)
        state = state >> 8 ^ tables[0][(state ^ *data) & 0xff];
    return state;
}

uint32_t nc_crc32(uint32_t crc, const void *data, size_t size)
{
    (void)pthread_once(&prepared, prepare);
    return ~kernel(~crc, data, size);
}

uint32_t nc_crc32_tables(uint32_t crc, const void *data, size_t size)
{
    (void)pthread_once(&prepared, prepare);
    return ~nc_crc_state_tables(~crc, data, size);
}

uint32_t nc_crc32_zeros(uint32_t crc, uint64_t size)
{
    uint32_t state = ~crc;

    (void)pthread_once(&prepared, prepare);
    /* A zero byte multiplies the register by x^8 = x^(2^3). P is primitive, so x^(2^32) = x and the
     * table of squares starts over after 32. */
    for (size_t i = 3; size != 0; size >>= 1, i++) {
        if (size & 1)
            state = product(squares[i % 32], state);
    }
    return ~state;
}

const char *nc_crc32_kernel(void)
{
    (void)pthread_once(&prepared, prepare);
    return kernel_name;
}
