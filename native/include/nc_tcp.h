/* TCP congestion control: what the kernel has, what this process may use, what a socket uses; and
 * what the kernel measured of a connection. */
#ifndef NC_TCP_H
#define NC_TCP_H

#include <stddef.h>
#include <stdint.h>

struct nc_err;

/* TCP_CA_NAME_MAX of the kernel, the terminating zero included. */
#define NC_TCP_NAME_BYTES 16

enum nc_tcp_list {
    NC_TCP_AVAILABLE, /* loaded in the kernel */
    NC_TCP_ALLOWED,   /* open to processes without CAP_NET_ADMIN */
    NC_TCP_DEFAULT,   /* what a new socket gets */
};

/* Copies the kernel's space-separated list, without its newline, into ret_text. */
int nc_tcp_list(int which, char *ret_text, size_t size, struct nc_err *err);

/* Asks the kernel, on a socket that is closed again, whether this process may choose `name`:
 * OK, DENIED (not in the allowed list and no CAP_NET_ADMIN), NOT_FOUND (not loaded). */
int nc_tcp_probe(const char *name, struct nc_err *err);

/* Chooses the algorithm of one socket and reads it back; the socket stays the caller's. */
int nc_tcp_set(int fd, const char *name, struct nc_err *err);
int nc_tcp_get(int fd, char *ret_name, size_t size, struct nc_err *err);

/* What the kernel knows of a connection's way; see tcp_get_info() in net/ipv4/tcp.c. Counters are
 * of the whole life of the connection. What the kernel is too old to know is zero. */
struct nc_tcp_info {
    uint32_t rtt_us;       /* smoothed, gain 1/8; without a sample 0 */
    uint32_t rttvar_us;    /* smoothed mean deviation, gain 1/4 */
    uint32_t min_rtt_us;   /* within net.ipv4.tcp_min_rtt_wlen, five minutes; ~0 without a sample */
    uint32_t segments_out; /* with data, repeated ones included */
    uint32_t total_retrans;
    uint32_t needless_retrans; /* those the other end said it had already (RFC 2883) */
    uint32_t delivered;        /* segments acknowledged */
    uint32_t delivered_ce;     /* of those, with a mark of congestion */
    int ecn;                   /* negotiated */
    int app_limited;           /* delivery_rate says how much there was to send */
    uint64_t delivery_rate;    /* bytes a second, latest sample */
};

/* INVALID where `fd` is no TCP socket. The socket stays the caller's. */
int nc_tcp_info(int fd, struct nc_tcp_info *ret_info, struct nc_err *err);

#endif
