/* TCP congestion control: what the kernel has, what this process may use, what a socket uses. */
#ifndef NC_TCP_H
#define NC_TCP_H

#include <stddef.h>

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

#endif
