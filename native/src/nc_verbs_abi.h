/* The part of libibverbs' binary interface this extension uses, declared here.
 *
 * The development headers are not needed to build: these shapes are the IBVERBS_1.1 symbols'
 * interface, frozen by the library's symbol versions since 2006. This is what listing devices
 * takes; what moving data takes besides, the calls through context->ops among it, is in
 * nc_rdma_abi.h. tests/verbs_abi_*.c compare both with the library's own headers where those are
 * installed. */
#ifndef NC_VERBS_ABI_H
#define NC_VERBS_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define NC_VERBS_SONAME "libibverbs.so.1"
#define NC_VERBS_VERSION "IBVERBS_1.1"

struct ibv_context;

struct ibv_device {
    void *private_ops[2];
    int node_type;
    int transport_type;
    char name[64];
    char dev_name[64];
    char dev_path[256];
    char ibdev_path[256];
};

struct ibv_device_attr {
    char fw_ver[64];
    uint64_t node_guid;
    uint64_t sys_image_guid;
    uint64_t max_mr_size;
    uint64_t page_size_cap;
    uint32_t vendor_id;
    uint32_t vendor_part_id;
    uint32_t hw_ver;
    int32_t limits[29]; /* max_qp to max_srq_sge, none of which we ask for */
    uint16_t max_pkeys;
    uint8_t local_ca_ack_delay;
    uint8_t phys_port_cnt;
};

struct ibv_port_attr {
    int state;
    int max_mtu;
    int active_mtu;
    int gid_tbl_len;
    uint32_t port_cap_flags;
    uint32_t max_msg_sz;
    uint32_t bad_pkey_cntr;
    uint32_t qkey_viol_cntr;
    uint16_t pkey_tbl_len;
    uint16_t lid;
    uint16_t sm_lid;
    uint8_t lmc;
    uint8_t max_vl_num;
    uint8_t sm_sl;
    uint8_t subnet_timeout;
    uint8_t init_type_reply;
    uint8_t active_width;
    uint8_t active_speed;
    uint8_t phys_state;
    uint8_t link_layer;
    uint8_t flags;
    /* The library writes no more than the fields above; newer ones would land here. */
    uint8_t reserve[64];
};

/* X(name, return type, parameters): makes the table of pointers and the loader. */
#define NC_VERBS_SYMBOLS(X)                                                                        \
    X(get_device_list, struct ibv_device **, (int *))                                              \
    X(free_device_list, void, (struct ibv_device **))                                              \
    X(get_device_name, const char *, (struct ibv_device *))                                        \
    X(get_device_guid, uint64_t, (struct ibv_device *))                                            \
    X(open_device, struct ibv_context *, (struct ibv_device *))                                    \
    X(close_device, int, (struct ibv_context *))                                                   \
    X(query_device, int, (struct ibv_context *, struct ibv_device_attr *))                         \
    X(query_port, int, (struct ibv_context *, uint8_t, struct ibv_port_attr *))

static_assert(offsetof(struct ibv_device, node_type) == 2 * sizeof(void *), "ibv_device");
static_assert(offsetof(struct ibv_device_attr, phys_port_cnt) == 227, "ibv_device_attr");
static_assert(offsetof(struct ibv_port_attr, link_layer) == 46, "ibv_port_attr");

#endif
