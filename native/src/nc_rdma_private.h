/* What the three files of the RDMA channel share:
 * nc_rdma.c opens the device, nc_rdma_channel.c makes the queue pair and its slabs,
 * nc_rdma_queue.c moves messages and credits. */
#ifndef NC_RDMA_PRIVATE_H
#define NC_RDMA_PRIVATE_H

#include <stdatomic.h>

#include "nc_err.h"
#include "nc_rdma.h"
#include "nc_rdma_abi.h"
#include "nc_verbs_private.h"

#define NC_RDMA_MIN_SLOTS 2u
#define NC_RDMA_MAX_SLOTS 1024u /* a slot number takes ten bits of the immediate value */

struct nc_rdma {
    struct nc_verbs *verbs;
    struct ibv_context *context;
#define X(name, version, type, parameters) type(*name) parameters;
    NC_RDMA_SYMBOLS(X)
#undef X
    struct nc_verbs_device device;
    struct ibv_port_attr port;
    uint8_t port_number;
    uint8_t gid_index;
    union ibv_gid gid;
    char node_path[96]; /* the device file; watched by inotify */
    int watch_fd;       /* -1: there is no device file to watch */
    int lost_fd;        /* stays readable once the device is lost, for every channel's sake */
    atomic_int lost;    /* enum nc_rdma_loss */
    atomic_uint users;  /* who opened it, and its channels */
};

enum nc_rdma_loss { NC_RDMA_PRESENT = 0, NC_RDMA_BROKEN, NC_RDMA_REMOVED };

/* The last user closes the device. */
void nc_rdma_release(struct nc_rdma *rdma);

/* Takes what the kernel says about the device; any channel's thread may call it. */
enum nc_rdma_loss nc_rdma_watch(struct nc_rdma *rdma);

enum nc_rdma_transmit_state { NC_RDMA_FREE = 0, NC_RDMA_ACQUIRED, NC_RDMA_POSTED };
enum nc_rdma_receive_state { NC_RDMA_PEERS = 0, NC_RDMA_HELD, NC_RDMA_RETURNING };

/* Slot numbers, last in, first out: the slot used last is the one that caches still hold. */
struct nc_rdma_stack {
    uint16_t slots[NC_RDMA_MAX_SLOTS];
    uint32_t count;
};

struct nc_rdma_channel {
    struct nc_rdma *rdma;
    uint32_t slots;
    uint32_t slot_bytes;
    uint32_t psn;
    size_t slab_bytes;
    uint8_t *receive_slab;
    uint8_t *transmit_slab;
    struct ibv_pd *pd;
    struct ibv_mr *receive_mr;
    struct ibv_mr *transmit_mr;
    struct ibv_comp_channel *events;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    int epoll_fd; /* the descriptor the caller waits for: completions, the device, `more_fd` */
    int more_fd;  /* readable while poll was left with something undelivered */
    int timer_fd; /* readable when it is time to ask whether the peer is there; -1: never */
    int more;
    int armed; /* the next completion raises an event, or has raised one we did not take */
    int connected;
    struct nc_rdma_peer peer;

    uint8_t transmit[NC_RDMA_MAX_SLOTS]; /* enum nc_rdma_transmit_state, our transmit slots */
    struct nc_rdma_stack idle;           /* those that are free */
    uint32_t acquired;
    uint8_t receive[NC_RDMA_MAX_SLOTS]; /* enum nc_rdma_receive_state, our receive slots */
    struct nc_rdma_stack returns;       /* those whose credit is owed to the peer */
    uint8_t lent[NC_RDMA_MAX_SLOTS];    /* 1: a slot of the peer that holds our message */
    struct nc_rdma_stack credits;       /* those of the peer's that we may write */
    uint32_t credit_writes;             /* writes without a message that are not completed */
    int probing;                        /* a probe is not completed */

    int failed;
    int failed_by_flush; /* the reason is only that something else failed before */
    struct nc_err failure;
};

/* How often a channel on which nothing is outstanding is probed; 0: never. For tests: a probe that
 * wakes everybody up each second would hide that another wake-up was lost. */
extern uint64_t nc_rdma_probe_ns;

/* The queue pair's requests, by their wr_id; the slot is in the low bits. */
#define NC_RDMA_WR_PROBE (UINT64_C(0) << 32)
#define NC_RDMA_WR_MESSAGE (UINT64_C(1) << 32)
#define NC_RDMA_WR_CREDIT (UINT64_C(2) << 32)
#define NC_RDMA_WR_RECEIVE (UINT64_C(3) << 32)
#define NC_RDMA_WR_KIND (UINT64_C(3) << 32)

/* Posts `count` receives; each takes the notice of one write. */
int nc_rdma_receive_more(struct nc_rdma_channel *channel, uint32_t count, struct nc_err *err);

#endif
