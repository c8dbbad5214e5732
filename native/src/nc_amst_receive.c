/* What arrives for an object: checked against what was agreed on, written, acknowledged. */
#include <errno.h>
#include <stdlib.h>

#include "nc_amst_internal.h"
#include "nc_crc.h"

void nc_ack_queue(struct nc_stream *stream, int kind, const struct nc_frame *frame, uint64_t offset,
                  uint64_t value)
{
    struct nc_frame_ack ack = {.kind = (uint8_t)kind,
                               .object = frame->object,
                               .generation = frame->generation,
                               .offset = offset,
                               .value = value};

    /* Of a byte stream only the newest place counts. */
    for (size_t i = 0; kind == NC_ACK_READ && i < stream->ack_count; i++) {
        struct nc_frame_ack *old = &stream->acks[i];

        if (old->kind == NC_ACK_READ && old->object == ack.object &&
            old->generation == ack.generation) {
            old->offset = offset;
            return;
        }
    }
    if (stream->ack_count < NC_ACKS_HELD) {
        stream->acks[stream->ack_count++] = ack;
    } else {
        /* One that is lost would be waited for: better to lose the stream, and send again. */
        atomic_store(&stream->killed, true);
        nc_link_kick(stream);
    }
}

static void refuse(struct nc_stream *stream, const struct nc_frame *frame, int code, int os_errno)
{
    nc_ack_queue(stream, NC_ACK_REFUSED, frame, (uint64_t)os_errno, nc_frame_error_number(code));
}

struct nc_amst_object *nc_object_of_frame(struct nc_stream *stream, const struct nc_frame *frame)
{
    struct nc_amst_object *object =
        nc_object_find(stream->link->incoming, frame->object, frame->generation);

    if (object == NULL) {
        refuse(stream, frame, NC_ERR_NOT_FOUND, 0);
    } else if (object->finished && object->info.code != NC_ERR_OK) {
        refuse(stream, frame, object->info.code, object->info.os_errno);
        object = NULL;
    }
    return object;
}

static void fail(struct nc_stream *stream, struct nc_amst_object *object,
                 const struct nc_frame *frame, int code, int os_errno)
{
    nc_object_finish(object, code, os_errno);
    refuse(stream, frame, code, os_errno);
}

static void count(struct nc_amst_object *object, const struct nc_frame *frame)
{
    uint64_t wire = frame->wire_size - NC_FRAME_CHECKSUM_BYTES;

    object->coded.chunks[frame->codec]++;
    object->coded.bytes[frame->codec] += frame->raw_size;
    object->coded.wire_bytes[frame->codec] += wire;
    if ((frame->flags & NC_FRAME_DELTA) != 0) {
        object->coded.delta_chunks++;
        object->coded.delta_bytes += frame->raw_size;
        object->coded.delta_wire_bytes += wire;
    }
}

int nc_receive_chunk(struct nc_stream *stream, const struct nc_frame *frame,
                     struct nc_decoded *decoded, struct nc_err *err)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object;
    uint64_t index;
    bool other_base = false;
    int code = NC_ERR_OK;

    *err = (struct nc_err){.code = NC_ERR_OK};
    (void)pthread_mutex_lock(&link->lock);
    object = nc_object_of_frame(stream, frame);
    if (object == NULL)
        goto out;
    index = frame->offset / object->chunk;
    if (object->pipe != NULL || frame->offset % object->chunk != 0 || index >= object->chunks ||
        frame->raw_size != nc_object_chunk_size(object, index)) {
        fail(stream, object, frame, NC_ERR_PROTOCOL, 0);
        goto out;
    }
    if (nc_bit(object->done, index) || nc_bit(object->todo, index)) {
        /* Here, or just being written by another thread: a second copy is worth nothing. */
        link->info.duplicate_bytes += frame->raw_size;
        nc_ack_queue(stream, NC_ACK_CHUNK, frame, frame->offset, frame->raw_size);
        goto out;
    }
    nc_bit_set(object->todo, index);
    object->users++;
    (void)pthread_mutex_unlock(&link->lock);
    if ((frame->flags & NC_FRAME_DELTA) != 0) {
        code = nc_decode_delta(stream, object, frame, decoded, err);
        other_base = code == NC_ERR_NOT_FOUND;
    }
    if (code == NC_ERR_OK)
        (void)nc_object_write(object, frame->offset, frame->raw_size, decoded->data, err);
    (void)pthread_mutex_lock(&link->lock);
    nc_bit_clear(object->todo, index);
    nc_encode_charge(object, NC_AMST_STAGE_DECODE, decoded->cpu_ns);
    if (other_base) {
        code = NC_ERR_OK;
        object->coded.refused_bases++;
        nc_ack_queue(stream, NC_ACK_BASE, frame, frame->offset, frame->raw_size);
    } else if (code != NC_ERR_OK) {
        ; /* it did not arrive as it was sent: whoever sent it sends it again, on another stream */
    } else if (err->code != NC_ERR_OK) {
        fail(stream, object, frame, err->code, err->os_errno);
    } else {
        object->leaves[index] = decoded->checksum;
        stream->received_bytes += frame->raw_size;
        link->info.received_bytes += frame->raw_size;
        count(object, frame);
        nc_ack_queue(stream, NC_ACK_CHUNK, frame, frame->offset, frame->raw_size);
        if (!object->aborted)
            nc_object_chunks_done(object, index, 1, frame->raw_size);
    }
    nc_object_release(object);
out:
    (void)pthread_mutex_unlock(&link->lock);
    return code;
}

void nc_receive_zero(struct nc_stream *stream, const struct nc_frame *frame, uint64_t length)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object;
    struct nc_err err = {.code = NC_ERR_OK};
    uint64_t first;
    uint64_t last;

    (void)pthread_mutex_lock(&link->lock);
    object = nc_object_of_frame(stream, frame);
    if (object == NULL)
        goto out;
    if (object->pipe != NULL || length == 0 || frame->offset % object->chunk != 0 ||
        frame->offset >= object->size || length > object->size - frame->offset ||
        (length % object->chunk != 0 && frame->offset + length != object->size)) {
        fail(stream, object, frame, NC_ERR_PROTOCOL, 0);
        goto out;
    }
    first = frame->offset / object->chunk;
    last = first + (length - 1) / object->chunk;
    if (!object->sparse || object->used) {
        object->users++;
        (void)pthread_mutex_unlock(&link->lock);
        (void)nc_object_clear(object, frame->offset, length, &err);
        (void)pthread_mutex_lock(&link->lock);
        nc_object_release(object);
        if (err.code != NC_ERR_OK) {
            fail(stream, object, frame, err.code, err.os_errno);
            goto out;
        }
    }
    for (uint64_t i = first; i <= last; i++) {
        uint32_t size = nc_object_chunk_size(object, i);

        if (!nc_bit(object->done, i))
            object->leaves[i] = size == object->chunk ? object->zero_leaf : nc_crc32_zeros(0, size);
    }
    nc_ack_queue(stream, NC_ACK_ZERO, frame, frame->offset, length);
    if (!object->aborted) {
        object->info.zero_bytes += length;
        object->coded.zero_chunks += last - first + 1;
        object->coded.zero_bytes += length;
        nc_object_chunks_done(object, first, last - first + 1, 0);
    }
out:
    (void)pthread_mutex_unlock(&link->lock);
}
