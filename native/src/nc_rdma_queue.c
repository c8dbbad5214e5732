#include "nc_rdma.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "nc_rdma_immediate.h"
#include "nc_rdma_private.h"

/* Completions taken at once: enough to make the call's cost small, little enough for the stack. */
#define BATCH 32u

static const char *status_text(int status)
{
    static const char *const texts[] = {
        [IBV_WC_LOC_LEN_ERR] = "local length error",
        [IBV_WC_LOC_QP_OP_ERR] = "local queue pair operation error",
        [IBV_WC_LOC_EEC_OP_ERR] = "local end-to-end context operation error",
        [IBV_WC_LOC_PROT_ERR] =
            "local protection error, the slab is not registered as it should be",
        [IBV_WC_WR_FLUSH_ERR] = "request flushed, the queue pair is in the error state",
        [IBV_WC_MW_BIND_ERR] = "memory window bind error",
        [IBV_WC_BAD_RESP_ERR] = "bad response from the peer's device",
        [IBV_WC_LOC_ACCESS_ERR] = "local access error, the peer wrote where it may not",
        [IBV_WC_REM_INV_REQ_ERR] = "the peer's device calls the request invalid",
        [IBV_WC_REM_ACCESS_ERR] = "remote access error, the peer's slots may not be written",
        [IBV_WC_REM_OP_ERR] = "remote operation error",
        [IBV_WC_RETRY_EXC_ERR] = "transport retries exceeded, the peer does not answer",
        [IBV_WC_RNR_RETRY_EXC_ERR] =
            "receiver-not-ready retries exceeded, the peer posted too few receives",
        [IBV_WC_LOC_RDD_VIOL_ERR] = "local domain violation",
        [IBV_WC_REM_INV_RD_REQ_ERR] = "remote invalid read request",
        [IBV_WC_REM_ABORT_ERR] = "operation aborted by the peer's device",
        [IBV_WC_INV_EECN_ERR] = "invalid end-to-end context number",
        [IBV_WC_INV_EEC_STATE_ERR] = "invalid end-to-end context state",
        [IBV_WC_FATAL_ERR] = "fatal device error",
        [IBV_WC_RESP_TIMEOUT_ERR] = "response timeout",
        [IBV_WC_GENERAL_ERR] = "general error",
    };
    const size_t count = sizeof texts / sizeof *texts;

    return status > 0 && (size_t)status < count ? texts[status] : "unknown status";
}

/* Gives the reason of the failure that ended the channel. */
static int failure_of(const struct nc_rdma_channel *channel, struct nc_err *err)
{
    if (err != NULL)
        *err = channel->failure;
    return channel->failure.code;
}

#define FAIL(channel, err, code, os_errno, ...)                                                    \
    ((channel)->failed = 1, (channel)->failed_by_flush = 0,                                        \
     (void)nc_err_set(&(channel)->failure, code, os_errno, __VA_ARGS__), failure_of(channel, err))

int nc_rdma_receive_more(struct nc_rdma_channel *channel, uint32_t count, struct nc_err *err)
{
    struct ibv_recv_wr requests[BATCH];

    memset(requests, 0, sizeof requests);
    while (count > 0) {
        uint32_t some = count < BATCH ? count : BATCH;
        struct ibv_recv_wr *bad = NULL;
        int failure;

        for (uint32_t i = 0; i < some; i++) {
            requests[i].wr_id = NC_RDMA_WR_RECEIVE;
            requests[i].next = i + 1 < some ? &requests[i + 1] : NULL;
        }
        failure = channel->qp->context->ops.post_recv(channel->qp, requests, &bad);
        if (failure != 0)
            return FAIL(channel, err, nc_verbs_code(failure), failure, "ibv_post_recv failed on %s",
                        channel->rdma->device.name);
        count -= some;
    }
    return NC_ERR_OK;
}

/* Without an immediate value the other side does not hear of the write. */
static int post(struct nc_rdma_channel *channel, uint64_t id, struct ibv_sge *piece,
                uint32_t remote_slot, const struct nc_rdma_immediate *immediate, struct nc_err *err)
{
    struct ibv_send_wr request = {
        .wr_id = id,
        .sg_list = piece,
        .num_sge = piece != NULL ? 1 : 0,
        .opcode = immediate != NULL ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE,
        .send_flags = IBV_SEND_SIGNALED,
        .imm_data = immediate != NULL ? htobe32(nc_rdma_immediate_write(immediate)) : 0,
        /* A write without bytes needs no valid place, but this one is valid anyhow. */
        .wr = {.rdma = {.remote_addr = channel->peer.address +
                                       (uint64_t)remote_slot * channel->peer.slot_bytes,
                        .rkey = channel->peer.rkey}},
    };
    struct ibv_send_wr *bad = NULL;
    int failure = channel->qp->context->ops.post_send(channel->qp, &request, &bad);

    if (failure != 0)
        return FAIL(channel, err, nc_verbs_code(failure), failure, "ibv_post_send failed on %s",
                    channel->rdma->device.name);
    return NC_ERR_OK;
}

/* Takes at most `most` owed credits into *immediate. */
static void take_returns(struct nc_rdma_channel *channel, uint32_t most,
                         struct nc_rdma_immediate *immediate)
{
    while (immediate->count < most && channel->returns.count > 0) {
        uint16_t slot = channel->returns.slots[--channel->returns.count];

        channel->receive[slot] = NC_RDMA_PEERS;
        immediate->returned[immediate->count++] = slot;
    }
}

/* Pays every owed credit, as far as the send queue has room; the rest goes with a later message or
 * when a completion made room. */
static int return_credits(struct nc_rdma_channel *channel, struct nc_err *err)
{
    while (channel->returns.count > 0 && channel->credit_writes < channel->slots) {
        struct nc_rdma_immediate immediate = {0};
        int code;

        take_returns(channel, 3, &immediate);
        code = post(channel, NC_RDMA_WR_CREDIT, NULL, 0, &immediate, err);
        if (code != NC_ERR_OK)
            return code;
        channel->credit_writes++;
    }
    return NC_ERR_OK;
}

/* A write without bytes, notice or receive: all it does is to be acknowledged, or not. While
 * another one is outstanding, that one finds out. */
static int probe(struct nc_rdma_channel *channel, struct nc_err *err)
{
    uint32_t posted = channel->slots - channel->idle.count - channel->acquired;
    uint64_t expirations;

    (void)!read(channel->timer_fd, &expirations, sizeof expirations);
    if (posted > 0 || channel->credit_writes > 0 || channel->probing)
        return NC_ERR_OK;
    channel->probing = 1;
    return post(channel, NC_RDMA_WR_PROBE, NULL, 0, NULL, err);
}

static int has_room(const struct nc_rdma_channel *channel)
{
    return !channel->failed && channel->idle.count > 0 &&
           channel->credits.count > channel->acquired;
}

uint8_t *nc_rdma_channel_acquire(struct nc_rdma_channel *channel, uint32_t *ret_slot)
{
    uint16_t slot;

    if (!has_room(channel))
        return NULL;
    slot = channel->idle.slots[--channel->idle.count];
    channel->transmit[slot] = NC_RDMA_ACQUIRED;
    channel->acquired++;
    *ret_slot = slot;
    return channel->transmit_slab + (size_t)slot * channel->slot_bytes;
}

void nc_rdma_channel_discard(struct nc_rdma_channel *channel, uint32_t slot)
{
    if (slot >= channel->slots || channel->transmit[slot] != NC_RDMA_ACQUIRED)
        return;
    channel->transmit[slot] = NC_RDMA_FREE;
    channel->idle.slots[channel->idle.count++] = (uint16_t)slot;
    channel->acquired--;
}

int nc_rdma_channel_delivered(const struct nc_rdma_channel *channel)
{
    return channel->idle.count + channel->acquired == channel->slots && channel->credit_writes == 0;
}

int nc_rdma_channel_post(struct nc_rdma_channel *channel, uint32_t slot, uint32_t size,
                         struct nc_err *err)
{
    struct nc_rdma_immediate immediate = {.has_message = 1};
    struct ibv_sge piece;

    if (channel->failed)
        return failure_of(channel, err);
    if (slot >= channel->slots || channel->transmit[slot] != NC_RDMA_ACQUIRED)
        return nc_err_set(err, NC_ERR_INVALID, 0, "transmit slot %u was not acquired", slot);
    if (size == 0 || size > channel->slot_bytes)
        return nc_err_set(err, NC_ERR_INVALID, 0, "a message of %u bytes in a slot of %u", size,
                          channel->slot_bytes);
    piece = (struct ibv_sge){
        .addr = (uint64_t)(uintptr_t)channel->transmit_slab + (uint64_t)slot * channel->slot_bytes,
        .length = size,
        .lkey = channel->transmit_mr->lkey,
    };
    /* acquire made sure that there is one. */
    immediate.message = channel->credits.slots[--channel->credits.count];
    channel->lent[immediate.message] = 1;
    channel->acquired--;
    channel->transmit[slot] = NC_RDMA_POSTED;
    take_returns(channel, 2, &immediate);
    return post(channel, NC_RDMA_WR_MESSAGE | slot, &piece, immediate.message, &immediate, err);
}

int nc_rdma_channel_release(struct nc_rdma_channel *channel, uint32_t slot, struct nc_err *err)
{
    if (channel->failed)
        return failure_of(channel, err);
    if (slot >= channel->slots || channel->receive[slot] != NC_RDMA_HELD)
        return nc_err_set(err, NC_ERR_INVALID, 0, "receive slot %u holds no message", slot);
    channel->receive[slot] = NC_RDMA_RETURNING;
    channel->returns.slots[channel->returns.count++] = (uint16_t)slot;
    if (2 * channel->returns.count >= channel->slots)
        return return_credits(channel, err);
    return NC_ERR_OK;
}

static void sent(struct nc_rdma_channel *channel, uint64_t id)
{
    uint32_t slot = (uint32_t)id;

    if ((id & NC_RDMA_WR_KIND) == NC_RDMA_WR_CREDIT) {
        channel->credit_writes--;
        return;
    }
    if ((id & NC_RDMA_WR_KIND) == NC_RDMA_WR_PROBE) {
        channel->probing = 0;
        return;
    }
    channel->transmit[slot] = NC_RDMA_FREE;
    channel->idle.slots[channel->idle.count++] = (uint16_t)slot;
}

/* The peer's device is trusted to say what was written, the peer is not. */
static int received(struct nc_rdma_channel *channel, const struct ibv_wc *completion,
                    struct nc_rdma_message *ret_message, int *ret_has_message, struct nc_err *err)
{
    struct nc_rdma_immediate immediate;

    if (completion->opcode != IBV_WC_RECV_RDMA_WITH_IMM ||
        !(completion->wc_flags & IBV_WC_WITH_IMM) ||
        !nc_rdma_immediate_read(be32toh(completion->imm_data), &immediate))
        return FAIL(channel, err, NC_ERR_PROTOCOL, 0, "the peer sent something else than a write");
    for (uint32_t i = 0; i < immediate.count; i++) {
        uint32_t slot = immediate.returned[i];

        if (slot >= channel->peer.slots || !channel->lent[slot])
            return FAIL(channel, err, NC_ERR_PROTOCOL, 0,
                        "the peer returned slot %u, which holds nothing of ours", slot);
        channel->lent[slot] = 0;
        channel->credits.slots[channel->credits.count++] = (uint16_t)slot;
    }
    if (!immediate.has_message)
        return NC_ERR_OK;
    if (immediate.message >= channel->slots || channel->receive[immediate.message] != NC_RDMA_PEERS)
        return FAIL(channel, err, NC_ERR_PROTOCOL, 0,
                    "the peer wrote into slot %u, which was not its to write", immediate.message);
    if (completion->byte_len == 0 || completion->byte_len > channel->slot_bytes)
        return FAIL(channel, err, NC_ERR_PROTOCOL, 0, "the peer wrote %u bytes into a slot of %u",
                    completion->byte_len, channel->slot_bytes);
    channel->receive[immediate.message] = NC_RDMA_HELD;
    *ret_message = (struct nc_rdma_message){
        .data = channel->receive_slab + (size_t)immediate.message * channel->slot_bytes,
        .size = completion->byte_len,
        .slot = immediate.message,
    };
    *ret_has_message = 1;
    return NC_ERR_OK;
}

/* The first status says why; what comes after it is flushed. But the two queues fail separately,
 * and where a flushed request is seen first, the reason may still follow. */
static void note_status(struct nc_rdma_channel *channel, const struct ibv_wc *completion)
{
    if (channel->failed && !channel->failed_by_flush)
        return;
    (void)FAIL(channel, NULL, NC_ERR_SYSTEM, 0, "%s: %s (status %d, vendor 0x%x)",
               channel->rdma->device.name, status_text(completion->status), completion->status,
               completion->vendor_err);
    channel->failed_by_flush = completion->status == IBV_WC_WR_FLUSH_ERR;
}

static void look_for_status(struct nc_rdma_channel *channel)
{
    struct ibv_wc completions[BATCH];
    int count;

    do {
        count = channel->cq->context->ops.poll_cq(channel->cq, (int)BATCH, completions);
        for (int i = 0; i < count; i++) {
            if (completions[i].status != IBV_WC_SUCCESS)
                note_status(channel, &completions[i]);
        }
    } while (count > 0 && channel->failed_by_flush);
}

/* One batch of completions. *ret_taken: how many there were. */
static int take(struct nc_rdma_channel *channel, struct nc_rdma_message *ret_messages,
                size_t capacity, size_t *count, int *ret_taken, struct nc_err *err)
{
    struct ibv_wc completions[BATCH];
    size_t most = capacity < BATCH ? capacity : BATCH;
    uint32_t receives = 0;

    *ret_taken = channel->cq->context->ops.poll_cq(channel->cq, (int)most, completions);
    if (*ret_taken < 0)
        return FAIL(channel, err, NC_ERR_SYSTEM, 0, "ibv_poll_cq failed on %s",
                    channel->rdma->device.name);
    for (int i = 0; i < *ret_taken; i++) {
        const struct ibv_wc *completion = &completions[i];
        int has_message = 0;

        if (completion->status != IBV_WC_SUCCESS) {
            note_status(channel, completion);
        } else if ((completion->wr_id & NC_RDMA_WR_KIND) != NC_RDMA_WR_RECEIVE) {
            sent(channel, completion->wr_id);
        } else if (!channel->failed) {
            receives++;
            if (received(channel, completion, &ret_messages[*count], &has_message, err) ==
                    NC_ERR_OK &&
                has_message)
                ++*count;
        }
    }
    if (channel->failed) {
        if (channel->failed_by_flush)
            look_for_status(channel);
        return failure_of(channel, err);
    }
    /* Before the credits just received can be used, and before those of the messages just received
     * can be returned: so there is a receive for each write that may come. */
    return nc_rdma_receive_more(channel, receives, err);
}

static int take_events(struct nc_rdma_channel *channel, struct nc_err *err)
{
    const struct nc_rdma *rdma = channel->rdma;
    struct ibv_cq *cq = NULL;
    void *context = NULL;
    unsigned int count = 0;

    while (rdma->get_cq_event(channel->events, &cq, &context) == 0)
        count++;
    if (errno != EAGAIN && errno != EINTR)
        return FAIL(channel, err, NC_ERR_SYSTEM, errno, "ibv_get_cq_event failed on %s",
                    rdma->device.name);
    if (count > 0) {
        rdma->ack_cq_events(channel->cq, count); /* destroying the queue waits for this */
        channel->armed = 0;
    }
    return NC_ERR_OK;
}

/* Called when the completion queue was found empty. *ret_again: it was armed just now, and what
 * came before that raises no event, so it has to be looked at once more. */
static int rearm(struct nc_rdma_channel *channel, int *ret_again, struct nc_err *err)
{
    struct epoll_event ready[6]; /* all there are */
    int count = epoll_wait(channel->epoll_fd, ready, 6, 0);
    enum nc_rdma_loss loss = NC_RDMA_PRESENT;
    int failure;

    *ret_again = 0;
    for (int i = 0; i < count; i++) {
        int code = NC_ERR_OK;

        if (ready[i].data.fd == channel->events->fd)
            code = take_events(channel, err);
        else if (ready[i].data.fd == channel->timer_fd)
            code = probe(channel, err);
        else if (ready[i].data.fd != channel->more_fd)
            loss = nc_rdma_watch(channel->rdma);
        if (code != NC_ERR_OK)
            return code;
    }
    if (loss != NC_RDMA_PRESENT)
        return FAIL(channel, err, NC_ERR_SYSTEM, ENODEV, "RDMA device %s %s",
                    channel->rdma->device.name,
                    loss == NC_RDMA_REMOVED ? "was removed" : "failed and must be reset");
    if (channel->armed)
        return NC_ERR_OK;
    failure = channel->cq->context->ops.req_notify_cq(channel->cq, 0);
    if (failure != 0)
        return FAIL(channel, err, nc_verbs_code(failure), failure, "ibv_req_notify_cq failed on %s",
                    channel->rdma->device.name);
    channel->armed = 1;
    *ret_again = 1;
    return NC_ERR_OK;
}

static int drain(struct nc_rdma_channel *channel, struct nc_rdma_message *ret_messages,
                 size_t capacity, size_t *count, struct nc_err *err)
{
    int again = 1;

    while (again && *count < capacity) {
        int taken = 0;
        int code = take(channel, ret_messages, capacity - *count, count, &taken, err);

        if (code != NC_ERR_OK)
            return code;
        if (taken > 0)
            continue;
        code = return_credits(channel, err);
        if (code == NC_ERR_OK)
            code = rearm(channel, &again, err);
        if (code != NC_ERR_OK)
            return code;
    }
    return NC_ERR_OK;
}

int nc_rdma_channel_poll(struct nc_rdma_channel *channel, struct nc_rdma_message *ret_messages,
                         size_t capacity, size_t *ret_count, int *ret_room, struct nc_err *err)
{
    uint64_t word = 1;
    int code;

    *ret_count = 0;
    *ret_room = 0;
    if (channel->failed)
        return failure_of(channel, err);
    if (capacity == 0)
        return nc_err_set(err, NC_ERR_INVALID, 0, "no room for a message");
    if (channel->more) {
        (void)!read(channel->more_fd, &word, sizeof word);
        channel->more = 0;
    }
    code = drain(channel, ret_messages, capacity, ret_count, err);
    /* Messages that came before the failure are good; the next call reports it. */
    if (code != NC_ERR_OK && *ret_count == 0)
        return code;
    if (code != NC_ERR_OK || *ret_count == capacity) {
        word = 1;
        channel->more = 1;
        (void)!write(channel->more_fd, &word, sizeof word);
    }
    *ret_room = has_room(channel);
    return NC_ERR_OK;
}
