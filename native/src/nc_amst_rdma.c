/* Frames over RDMA: each is one message, put together in the slot it is sent from and copied
 * out of the slot it arrived in before it is opened. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nc_amst_internal.h"
#include "nc_rdma.h"

/* Messages taken in one turn. */
#define TURN_MESSAGES 4

bool nc_amst_rdma_roomy(struct nc_stream *stream)
{
    if (stream->out.slab == NULL)
        stream->out.slab = nc_rdma_channel_acquire(stream->channel, &stream->slot);
    return stream->out.slab != NULL;
}

static void failed(struct nc_stream *stream, const struct nc_err *err)
{
    /* After both said goodbye the first to close is missed by the other. */
    if (stream->said_bye && stream->heard_bye) {
        nc_stream_break(stream, NC_ERR_OK, 0);
        return;
    }
    if (!stream->broken)
        (void)snprintf(stream->lost_why, sizeof stream->lost_why, "%s", err->reason);
    nc_stream_break(stream, err->code, err->os_errno);
}

int nc_amst_rdma_send(struct nc_stream *stream)
{
    struct nc_outgoing *out = &stream->out;
    size_t size = out->part[0].iov_len;
    struct nc_err err;

    if (!nc_amst_rdma_roomy(stream))
        return 0;
    if (out->part[0].iov_base != out->slab)
        memcpy(out->slab, out->part[0].iov_base, size);
    out->slab = NULL;
    if (nc_rdma_channel_post(stream->channel, stream->slot, (uint32_t)size, &err) != NC_ERR_OK) {
        failed(stream, &err);
        return -1;
    }
    (void)atomic_fetch_add_explicit(&stream->wire_sent_bytes, size, memory_order_relaxed);
    return 1;
}

static int take(struct nc_stream *stream, const struct nc_rdma_message *message)
{
    struct nc_incoming *in = &stream->in;
    uint8_t *payload;
    int code;

    if (message->size < NC_FRAME_HEADER_BYTES) {
        nc_stream_break(stream, NC_ERR_PROTOCOL, 0);
        return NC_ERR_PROTOCOL;
    }
    memcpy(in->header, message->data, NC_FRAME_HEADER_BYTES);
    code = nc_stream_expect(stream);
    if (code != NC_ERR_OK)
        return code;
    if (message->size != NC_FRAME_HEADER_BYTES + in->want) {
        nc_stream_break(stream, NC_ERR_PROTOCOL, 0);
        return NC_ERR_PROTOCOL;
    }
    (void)atomic_fetch_add_explicit(&stream->wire_received_bytes, message->size,
                                    memory_order_relaxed);
    /* Whoever knows the slot's key can write it at any time, and the key travels in clear: what is
     * checked and written is a copy that nobody else reaches. */
    payload = in->small;
    if (in->want > sizeof in->small) {
        payload = in->slab = nc_slab_take(stream->thread);
        if (payload == NULL) {
            nc_stream_break(stream, NC_ERR_MEMORY, ENOMEM);
            return NC_ERR_MEMORY;
        }
    }
    memcpy(payload, message->data + NC_FRAME_HEADER_BYTES, in->want);
    code = nc_stream_take(stream, in->header, payload);
    nc_slab_give(stream->thread, in->slab);
    in->slab = NULL;
    return code;
}

void nc_amst_rdma_receive(struct nc_stream *stream)
{
    struct nc_rdma_message messages[TURN_MESSAGES];
    size_t count = 0;
    int room = 0;
    struct nc_err err;

    if (nc_rdma_channel_poll(stream->channel, messages, TURN_MESSAGES, &count, &room, &err) !=
        NC_ERR_OK) {
        failed(stream, &err);
        return;
    }
    if (room != 0)
        stream->blocked = false;
    if (count < TURN_MESSAGES)
        stream->readable = false;
    for (size_t i = 0; i < count && !stream->broken; i++) {
        if (take(stream, &messages[i]) != NC_ERR_OK)
            return;
        if (nc_rdma_channel_release(stream->channel, messages[i].slot, &err) != NC_ERR_OK)
            failed(stream, &err);
    }
    /* In order after both sides said so: nobody closes a queue pair for us to see. What was said
     * has to be over there before, since a closed queue pair takes along what it was to send. */
    if (stream->said_bye && stream->heard_bye && !stream->out.active &&
        nc_rdma_channel_delivered(stream->channel))
        nc_stream_break(stream, NC_ERR_OK, 0);
}
