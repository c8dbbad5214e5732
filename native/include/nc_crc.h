/* CRC-32 of IEEE 802.3, the one of zlib and gzip: reflected polynomial 0xedb88320.
 *
 * The chunk checksum of AMST. This one and not CRC-32C, because a node without the extension
 * (protocol v1) has to check the same value, and Python's zlib has this one. */
#ifndef NC_CRC_H
#define NC_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 to begin) over size bytes, as zlib's crc32() does. Picks the fastest kernel
 * the CPU has (carry-less multiplication, or tables) at the first call; thread-safe. */
uint32_t nc_crc32(uint32_t crc, const void *data, size_t size);

/* The CRC of size zero bytes appended to what gave `crc`, in O(log size). */
uint32_t nc_crc32_zeros(uint32_t crc, uint64_t size);

/* "vpclmul" (with AVX-512), "pclmul" or "tables". */
const char *nc_crc32_kernel(void);

/* The portable kernel, for tests to hold the others against. */
uint32_t nc_crc32_tables(uint32_t crc, const void *data, size_t size);

#endif
