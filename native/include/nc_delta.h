/* The difference between a chunk and another version of it: XOR, with runs of zeros left out.
 *
 * A delta stream is a sequence of pairs: how many bytes are the same, how many differ, and the XOR
 * of those. Both numbers are little-endian base 128 (seven bits a byte, the highest bit says that
 * more follow; at most five bytes, none of them superfluous). What remains after the last pair is
 * the same. Only a first and only pair may have no bytes that differ: that is a chunk that is the
 * same. A gap of fewer than eight bytes that are the same is part of what differs.
 *
 * After the XBZRLE of QEMU (Svard et al., "Evaluation of delta compression techniques for efficient
 * live migration of large virtual machines", VEE 2011), which codes pages so. */
#ifndef NC_DELTA_H
#define NC_DELTA_H

#include <stddef.h>
#include <stdint.h>

struct nc_err;

/* Its size; 0: it does not fit in `capacity`. */
size_t nc_delta_encode(const uint8_t *content, const uint8_t *base, size_t size, uint8_t *ret_delta,
                       size_t capacity);
/* `base` may be ret_content, and must not overlap it otherwise. INTEGRITY where the stream is
 * damaged or not of a chunk of that size; ret_content is not to be used then. */
int nc_delta_decode(const uint8_t *delta, size_t delta_size, const uint8_t *base,
                    uint8_t *ret_content, size_t size, struct nc_err *err);

#endif
