/* RDMA devices through libibverbs, which is loaded at run time and need not be there. */
#ifndef NC_VERBS_H
#define NC_VERBS_H

#include <stddef.h>
#include <stdint.h>

struct nc_err;
struct nc_verbs;

#define NC_VERBS_NAME_BYTES 64
#define NC_VERBS_PATH_BYTES 256

struct nc_verbs_device {
    char name[NC_VERBS_NAME_BYTES];
    char sysfs_path[NC_VERBS_PATH_BYTES]; /* /sys/class/infiniband/<name>; may be empty */
    uint64_t guid;                        /* host byte order */
    int node_type;                        /* enum ibv_node_type: 1 CA, 2 switch, 4 RNIC, ... */
    int transport;                        /* enum ibv_transport_type: 0 IB, 1 iWARP, ... */
};

struct nc_verbs_port {
    int number;
    int state;          /* enum ibv_port_state: 4 is active */
    int link_layer;     /* 1 InfiniBand, 2 Ethernet (RoCE) */
    int active_mtu;     /* bytes */
    uint64_t speed_bps; /* 0 where the width or speed code is not known to us */
};

/* Loads `soname` (NULL: libibverbs.so.1) and takes the device list. UNAVAILABLE where there is no
 * library, no RDMA in the kernel or no device; DENIED where this process may not look. */
int nc_verbs_open(const char *soname, struct nc_verbs **ret_verbs, struct nc_err *err);
/* Takes NULL. */
void nc_verbs_close(struct nc_verbs *verbs);

size_t nc_verbs_count(const struct nc_verbs *verbs);
int nc_verbs_device(const struct nc_verbs *verbs, size_t index, struct nc_verbs_device *ret_device,
                    struct nc_err *err);
/* Opens the device for the time of the call. At most `capacity` ports are written; *ret_count is
 * how many the device has. */
int nc_verbs_ports(const struct nc_verbs *verbs, size_t index, struct nc_verbs_port *ret_ports,
                   size_t capacity, size_t *ret_count, struct nc_err *err);

/* Bits a second of a link, by the codes of the InfiniBand specification; 0 if not known. */
uint64_t nc_verbs_speed_bps(int width_code, int speed_code);

#endif
