/* The part of libibverbs' binary interface that moves data, declared here for the reason given in
 * nc_verbs_abi.h. Objects that the library allocates are declared as far as they are read; objects
 * that we allocate are declared whole. The enumerators have the library's names and values. */
#ifndef NC_RDMA_ABI_H
#define NC_RDMA_ABI_H

#include "nc_verbs_abi.h"

/* The two calls on completion channels were never changed after the first version. */
#define NC_RDMA_VERSION_0 "IBVERBS_1.0"
#define NC_RDMA_VERSION_FORK "IBVERBS_1.13"

enum { IBV_PORT_ACTIVE = 4 };
enum { IBV_TRANSPORT_IB = 0 };
enum { IBV_LINK_LAYER_INFINIBAND = 1, IBV_LINK_LAYER_ETHERNET = 2 };
enum { IBV_FORK_DISABLED = 0, IBV_FORK_ENABLED = 1, IBV_FORK_UNNEEDED = 2 };
enum { IBV_ACCESS_LOCAL_WRITE = 1, IBV_ACCESS_REMOTE_WRITE = 2 };
enum { IBV_QPT_RC = 2 };
enum {
    IBV_QPS_RESET,
    IBV_QPS_INIT,
    IBV_QPS_RTR,
    IBV_QPS_RTS,
    IBV_QPS_SQD,
    IBV_QPS_SQE,
    IBV_QPS_ERR
};
enum { IBV_WR_RDMA_WRITE = 0, IBV_WR_RDMA_WRITE_WITH_IMM = 1 };
enum { IBV_SEND_SIGNALED = 2 };
enum { IBV_WC_RDMA_WRITE = 1, IBV_WC_RECV_RDMA_WITH_IMM = 129 };
enum { IBV_WC_WITH_IMM = 2 };
enum { IBV_EVENT_DEVICE_FATAL = 8 };

enum {
    IBV_QP_STATE = 1 << 0,
    IBV_QP_ACCESS_FLAGS = 1 << 3,
    IBV_QP_PKEY_INDEX = 1 << 4,
    IBV_QP_PORT = 1 << 5,
    IBV_QP_AV = 1 << 7,
    IBV_QP_PATH_MTU = 1 << 8,
    IBV_QP_TIMEOUT = 1 << 9,
    IBV_QP_RETRY_CNT = 1 << 10,
    IBV_QP_RNR_RETRY = 1 << 11,
    IBV_QP_RQ_PSN = 1 << 12,
    IBV_QP_MAX_QP_RD_ATOMIC = 1 << 13,
    IBV_QP_MIN_RNR_TIMER = 1 << 15,
    IBV_QP_SQ_PSN = 1 << 16,
    IBV_QP_MAX_DEST_RD_ATOMIC = 1 << 17,
    IBV_QP_DEST_QPN = 1 << 20,
};

enum {
    IBV_WC_SUCCESS,
    IBV_WC_LOC_LEN_ERR,
    IBV_WC_LOC_QP_OP_ERR,
    IBV_WC_LOC_EEC_OP_ERR,
    IBV_WC_LOC_PROT_ERR,
    IBV_WC_WR_FLUSH_ERR,
    IBV_WC_MW_BIND_ERR,
    IBV_WC_BAD_RESP_ERR,
    IBV_WC_LOC_ACCESS_ERR,
    IBV_WC_REM_INV_REQ_ERR,
    IBV_WC_REM_ACCESS_ERR,
    IBV_WC_REM_OP_ERR,
    IBV_WC_RETRY_EXC_ERR,
    IBV_WC_RNR_RETRY_EXC_ERR,
    IBV_WC_LOC_RDD_VIOL_ERR,
    IBV_WC_REM_INV_RD_REQ_ERR,
    IBV_WC_REM_ABORT_ERR,
    IBV_WC_INV_EECN_ERR,
    IBV_WC_INV_EEC_STATE_ERR,
    IBV_WC_FATAL_ERR,
    IBV_WC_RESP_TIMEOUT_ERR,
    IBV_WC_GENERAL_ERR,
};

union ibv_gid {
    uint8_t raw[16];
    struct {
        uint64_t subnet_prefix;
        uint64_t interface_id;
    } global;
};

struct ibv_cq;
struct ibv_qp;
struct ibv_wc;
struct ibv_send_wr;
struct ibv_recv_wr;

/* The calls that verbs.h makes inline. The others of the table are exported functions' business. */
struct ibv_context_ops {
    void *before_poll_cq[11];
    int (*poll_cq)(struct ibv_cq *, int, struct ibv_wc *);
    int (*req_notify_cq)(struct ibv_cq *, int);
    void *before_post_send[12];
    int (*post_send)(struct ibv_qp *, struct ibv_send_wr *, struct ibv_send_wr **);
    int (*post_recv)(struct ibv_qp *, struct ibv_recv_wr *, struct ibv_recv_wr **);
    void *after_post_recv[5];
};

struct ibv_context {
    struct ibv_device *device;
    struct ibv_context_ops ops;
    int cmd_fd;
    int async_fd;
    int num_comp_vectors;
};

struct ibv_pd {
    struct ibv_context *context;
    uint32_t handle;
};

struct ibv_mr {
    struct ibv_context *context;
    struct ibv_pd *pd;
    void *addr;
    size_t length;
    uint32_t handle;
    uint32_t lkey;
    uint32_t rkey;
};

struct ibv_comp_channel {
    struct ibv_context *context;
    int fd;
    int refcnt;
};

struct ibv_cq {
    struct ibv_context *context;
    struct ibv_comp_channel *channel;
    void *cq_context;
    uint32_t handle;
    int cqe;
};

struct ibv_qp {
    struct ibv_context *context;
    void *qp_context;
    struct ibv_pd *pd;
    struct ibv_cq *send_cq;
    struct ibv_cq *recv_cq;
    void *srq;
    uint32_t handle;
    uint32_t qp_num;
};

struct ibv_qp_cap {
    uint32_t max_send_wr;
    uint32_t max_recv_wr;
    uint32_t max_send_sge;
    uint32_t max_recv_sge;
    uint32_t max_inline_data;
};

struct ibv_qp_init_attr {
    void *qp_context;
    struct ibv_cq *send_cq;
    struct ibv_cq *recv_cq;
    void *srq;
    struct ibv_qp_cap cap;
    int qp_type;
    int sq_sig_all;
};

struct ibv_global_route {
    union ibv_gid dgid;
    uint32_t flow_label;
    uint8_t sgid_index;
    uint8_t hop_limit;
    uint8_t traffic_class;
};

struct ibv_ah_attr {
    struct ibv_global_route grh;
    uint16_t dlid;
    uint8_t sl;
    uint8_t src_path_bits;
    uint8_t static_rate;
    uint8_t is_global;
    uint8_t port_num;
};

struct ibv_qp_attr {
    int qp_state;
    int cur_qp_state;
    int path_mtu;
    int path_mig_state;
    uint32_t qkey;
    uint32_t rq_psn;
    uint32_t sq_psn;
    uint32_t dest_qp_num;
    unsigned int qp_access_flags;
    struct ibv_qp_cap cap;
    struct ibv_ah_attr ah_attr;
    struct ibv_ah_attr alt_ah_attr;
    uint16_t pkey_index;
    uint16_t alt_pkey_index;
    uint8_t en_sqd_async_notify;
    uint8_t sq_draining;
    uint8_t max_rd_atomic;
    uint8_t max_dest_rd_atomic;
    uint8_t min_rnr_timer;
    uint8_t port_num;
    uint8_t timeout;
    uint8_t retry_cnt;
    uint8_t rnr_retry;
    uint8_t alt_port_num;
    uint8_t alt_timeout;
    uint32_t rate_limit;
};

struct ibv_sge {
    uint64_t addr;
    uint32_t length;
    uint32_t lkey;
};

struct ibv_send_wr {
    uint64_t wr_id;
    struct ibv_send_wr *next;
    struct ibv_sge *sg_list;
    int num_sge;
    int opcode;
    unsigned int send_flags;
    uint32_t imm_data; /* big-endian */
    union {
        struct {
            uint64_t remote_addr;
            uint32_t rkey;
        } rdma;
        uint64_t others[4];
    } wr;
    uint32_t qp_type;
    uint64_t others[6];
};

struct ibv_recv_wr {
    uint64_t wr_id;
    struct ibv_recv_wr *next;
    struct ibv_sge *sg_list;
    int num_sge;
};

struct ibv_wc {
    uint64_t wr_id;
    int status;
    int opcode;
    uint32_t vendor_err;
    uint32_t byte_len;
    uint32_t imm_data; /* big-endian */
    uint32_t qp_num;
    uint32_t src_qp;
    unsigned int wc_flags;
    uint16_t pkey_index;
    uint16_t slid;
    uint8_t sl;
    uint8_t dlid_path_bits;
};

struct ibv_async_event {
    union {
        void *object;
        int port_num;
    } element;
    int event_type;
};

/* X(name, version, return type, parameters). */
#define NC_RDMA_SYMBOLS(X)                                                                         \
    X(query_gid, NC_VERBS_VERSION, int, (struct ibv_context *, uint8_t, int, union ibv_gid *))     \
    X(get_async_event, NC_VERBS_VERSION, int, (struct ibv_context *, struct ibv_async_event *))    \
    X(ack_async_event, NC_VERBS_VERSION, void, (struct ibv_async_event *))                         \
    X(alloc_pd, NC_VERBS_VERSION, struct ibv_pd *, (struct ibv_context *))                         \
    X(dealloc_pd, NC_VERBS_VERSION, int, (struct ibv_pd *))                                        \
    X(reg_mr, NC_VERBS_VERSION, struct ibv_mr *, (struct ibv_pd *, void *, size_t, int))           \
    X(dereg_mr, NC_VERBS_VERSION, int, (struct ibv_mr *))                                          \
    X(create_comp_channel, NC_RDMA_VERSION_0, struct ibv_comp_channel *, (struct ibv_context *))   \
    X(destroy_comp_channel, NC_RDMA_VERSION_0, int, (struct ibv_comp_channel *))                   \
    X(create_cq, NC_VERBS_VERSION, struct ibv_cq *,                                                \
      (struct ibv_context *, int, void *, struct ibv_comp_channel *, int))                         \
    X(destroy_cq, NC_VERBS_VERSION, int, (struct ibv_cq *))                                        \
    X(get_cq_event, NC_VERBS_VERSION, int, (struct ibv_comp_channel *, struct ibv_cq **, void **)) \
    X(ack_cq_events, NC_VERBS_VERSION, void, (struct ibv_cq *, unsigned int))                      \
    X(create_qp, NC_VERBS_VERSION, struct ibv_qp *, (struct ibv_pd *, struct ibv_qp_init_attr *))  \
    X(modify_qp, NC_VERBS_VERSION, int, (struct ibv_qp *, struct ibv_qp_attr *, int))              \
    X(destroy_qp, NC_VERBS_VERSION, int, (struct ibv_qp *))

static_assert(offsetof(struct ibv_context_ops, poll_cq) == 11 * sizeof(void *), "ops");
static_assert(offsetof(struct ibv_context_ops, post_send) == 25 * sizeof(void *), "ops");
static_assert(sizeof(struct ibv_context_ops) == 32 * sizeof(void *), "ops");
static_assert(sizeof(struct ibv_send_wr) == 128, "ibv_send_wr");
static_assert(sizeof(struct ibv_wc) == 48, "ibv_wc");
static_assert(sizeof(struct ibv_qp_attr) == 144, "ibv_qp_attr");

#endif
