/* The 32 bits that come with each write: what was written, and up to three slots given back.
 *
 *   31-30 kind | 29-20 a | 19-10 b | 9-0 c
 *   0: a message in slot a                      1: and slot b is given back
 *   2: and slots b and c are given back         3: no message; a, b and c are given back
 * In kind 3 fewer than three are given back by naming the last one again.
 *
 * A returned slot costs no memory that the peer writes and that would itself need flow control, and
 * no write of its own while messages go the other way. Slots come back by number because the owner
 * of a slot may be done with a later one first. */
#ifndef NC_RDMA_IMMEDIATE_H
#define NC_RDMA_IMMEDIATE_H

#include <stdint.h>

struct nc_rdma_immediate {
    int has_message;
    uint32_t message; /* the slot */
    uint32_t returned[3];
    uint32_t count; /* of returned */
};

/* A message with at most two returned slots, or no message and one to three. */
static inline uint32_t nc_rdma_immediate_write(const struct nc_rdma_immediate *value)
{
    const uint32_t *returned = value->returned;
    uint32_t kind = value->has_message ? value->count : 3;
    uint32_t a = value->has_message ? value->message : returned[0];
    uint32_t b = 0;
    uint32_t c = 0;

    if (value->has_message) {
        b = value->count > 0 ? returned[0] : 0;
        c = value->count > 1 ? returned[1] : 0;
    } else {
        b = value->count > 1 ? returned[1] : a;
        c = value->count > 2 ? returned[2] : b;
    }
    return kind << 30 | a << 20 | b << 10 | c;
}

/* 0 where the bits that the kind does not use are not zero. */
static inline int nc_rdma_immediate_read(uint32_t bits, struct nc_rdma_immediate *ret_value)
{
    uint32_t kind = bits >> 30;
    uint32_t a = bits >> 20 & 0x3ff;
    uint32_t b = bits >> 10 & 0x3ff;
    uint32_t c = bits & 0x3ff;

    *ret_value = (struct nc_rdma_immediate){0};
    if (kind == 3) {
        ret_value->returned[0] = a;
        ret_value->returned[1] = b;
        ret_value->returned[2] = c;
        ret_value->count = b == a ? 1 : c == b ? 2 : 3;
        return b != a || c == b;
    }
    ret_value->has_message = 1;
    ret_value->message = a;
    ret_value->count = kind;
    ret_value->returned[0] = b;
    ret_value->returned[1] = c;
    return (kind > 0 || b == 0) && (kind > 1 || c == 0);
}

#endif
