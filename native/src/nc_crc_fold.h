/* CRC-32 by folding: what the kernels share, and the constants they fold with.
 *
 * A message is a polynomial over GF(2), its first bit the highest coefficient, and its CRC is the
 * remainder by P = x^32 + 0x04c11db7. Nothing is lost when a part of the message is replaced by
 * another of the same remainder. So a 128-bit block A at a distance of D bits before the block B is
 * removed by adding A * x^D mod P to B: two carry-less multiplications instead of a walk.
 *
 * Bytes are loaded as they lie, least significant bit first, so bit i of a 64-bit half stands for
 * x^(63 - i). The half at the lower address, L, counts x^64 times the other, H:
 *
 *     A * x^D = L * x^(D + 64) + H * x^D
 *
 * The product of two such reflected 64-bit values has 127 bits, and read as a reflected 128-bit
 * value it stands for x times the product of what they stand for: one x is there already. A
 * constant c of 32 bits in the low half of a 64-bit register stands for c * x^32. So L has to be
 * multiplied by x^(D + 64 - 1 - 32) and H by x^(D - 1 - 32), both mod P and bit-reversed:
 *
 *     low  = reversed(x^(D + 31) mod P)
 *     high = reversed(x^(D - 33) mod P)
 *
 * native/tests/test_crc.c computes them anew. Private to nc_crc*.c and their tests. */
#ifndef NC_CRC_FOLD_H
#define NC_CRC_FOLD_H

#include <stddef.h>
#include <stdint.h>

/* X(D in bits, low, high): makes the kernels' constants, and the test's table. */
#define NC_CRC_FOLDS(X)                                                                            \
    X(128, 0xae689191u, 0xccaa009eu)                                                               \
    X(512, 0x8f352d95u, 0x1d9513d7u)                                                               \
    X(2048, 0xce3371cbu, 0xe95c1271u)

/* The kernels continue a register, which is the complement of a CRC. */
typedef uint32_t nc_crc_kernel(uint32_t state, const uint8_t *data, size_t size);

uint32_t nc_crc_state_tables(uint32_t state, const uint8_t *data, size_t size);

#if defined(__x86_64__)
#define NC_CRC_FOLDING 1
/* Any size; below NC_CRC_PCLMUL_LEAST the tables do all of it. */
#define NC_CRC_PCLMUL_LEAST 64
uint32_t nc_crc_state_pclmul(uint32_t state, const uint8_t *data, size_t size);
/* Any size; below NC_CRC_VPCLMUL_LEAST the kernel above does all of it. */
#define NC_CRC_VPCLMUL_LEAST 512
uint32_t nc_crc_state_vpclmul(uint32_t state, const uint8_t *data, size_t size);
#else
#define NC_CRC_FOLDING 0
#endif

#endif
